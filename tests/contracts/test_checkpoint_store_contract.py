"""What every checkpoint store does, and what LangGraph may expect of the saver in front of it."""

from __future__ import annotations

import asyncio
import operator
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, StateGraph

from wtb_prefect.domain.checkpoint import StoredCheckpoint
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.errors import CheckpointError
from wtb_prefect.infrastructure.checkpoints.langgraph_store import (
    LangGraphCheckpointStore,
    MemoryCheckpointStore,
    SqliteCheckpointStore,
    config_for,
)
from wtb_prefect.infrastructure.checkpoints.postgres_store import PostgresCheckpointStore
from wtb_prefect.infrastructure.checkpoints.recording_saver import RecordingSaver
from wtb_prefect.infrastructure.checkpoints.serializer import make_serializer


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LangGraphCheckpointStore]:
    """All adapters."""
    made: LangGraphCheckpointStore
    if request.param == "memory":
        made = MemoryCheckpointStore()
    elif request.param == "postgres":
        made = PostgresCheckpointStore(request.getfixturevalue("postgres_url"))
    else:
        made = SqliteCheckpointStore(tmp_path / "deeper" / "checkpoints.db")
    yield made
    made.close()


def new_id() -> CheckpointId:
    return CheckpointId(str(uuid6(clock_seq=-2)))


def checkpoint(
    thread: str, step: int, parent: CheckpointId | None = None, **values: Any
) -> StoredCheckpoint:
    return StoredCheckpoint(
        checkpoint_id=new_id(),
        thread_id=thread,
        parent_id=parent,
        step=step,
        channel_values=values,
        metadata={"note": "kept"},
    )


class State(TypedDict):
    log: Annotated[list, operator.add]


def stopped_beside_siblings(store: LangGraphCheckpointStore, thread: str) -> CheckpointId:
    """A thread whose head has pending writes of two siblings, beside a node that stopped."""

    def stops(state: State) -> None:
        raise GraphInterrupt(())

    graph(store, {"x": say("x"), "y": say("y"), "gate": stops}).invoke(
        {"log": ["in"]}, config_for(thread), durability="sync"
    )
    head = store.latest(thread)
    assert head is not None
    assert len(head.pending_tasks) == 2
    return head.checkpoint_id


def say(name: str) -> Callable[[State], dict[str, Any]]:
    def node(state: State) -> dict[str, Any]:
        return {"log": [name]}

    return node


def graph(store: LangGraphCheckpointStore, nodes: dict[str, Any]) -> Any:
    builder = StateGraph(State)
    builder.add_node("a", say("a"))
    builder.add_edge(START, "a")
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge("a", name)
    return builder.compile(checkpointer=store.saver)


def unwanted(state: State) -> None:
    raise AssertionError("a sibling with pending writes was run again")


def resumed(store: LangGraphCheckpointStore, thread: str) -> list[str]:
    """Goes on with the siblings' bodies forbidden: their writes have to be there."""
    nodes = {"x": unwanted, "y": unwanted, "gate": say("gate")}
    state = graph(store, nodes).invoke(None, config_for(thread), durability="sync")
    return state["log"]


def test_copying_the_end_of_a_thread(store: LangGraphCheckpointStore) -> None:
    """What came after a checkpoint can be read on another thread, whatever the first one does."""
    first = checkpoint("t", 0, log=["a"])
    second = checkpoint("t", 1, first.checkpoint_id, log=["a", "b"])
    third = checkpoint("t", 2, second.checkpoint_id, log=["a", "b", "c"])
    for one in (first, second, third):
        store.save(one)
    store.saver.put_writes(config_for("t", second.checkpoint_id), [("log", ["c"])], "task")
    for _ in range(2):  # twice is once
        store.copy("t", second.checkpoint_id, "kept")
    store.rewind("t", first.checkpoint_id, ())
    kept = store.history("kept")
    assert [(k.checkpoint_id, k.parent_id) for k in kept] == [
        (second.checkpoint_id, None),
        (third.checkpoint_id, second.checkpoint_id),
    ]
    assert kept[1].channel_values == {"log": ["a", "b", "c"]}
    assert kept[0].pending_tasks == ("task",)
    assert [s.checkpoint_id for s in store.history("t")] == [first.checkpoint_id]


def test_saved_is_loaded(store: LangGraphCheckpointStore) -> None:
    """Values, step, parent and metadata."""
    first = checkpoint("t", 0, log=["a"], number=1)
    second = checkpoint("t", 1, first.checkpoint_id, log=["a", "b"], number=2)
    store.save(first)
    store.save(second)
    found = store.load("t", second.checkpoint_id)
    assert found.channel_values == {"log": ["a", "b"], "number": 2}
    assert (found.step, found.parent_id) == (1, first.checkpoint_id)
    assert found.metadata["note"] == "kept"
    assert store.load("t", first.checkpoint_id).channel_values == {"log": ["a"], "number": 1}


class Colour(StrEnum):
    RED = "red"


SIMPLE = {
    "nul": "a\0b",
    "quotes": "'\"\\ größe 🗼",
    "integer": 2**53 + 1,
    "whole": 1e16,
    "small": 5e-324,
    "infinite": float("inf"),
    "zero": -0.0,
    "one": 1.0,
    "none": None,
    "yes": True,
    "enum": Colour.RED,
    "list": [1e16, "\0"],
}


def test_simple_values_come_back_as_they_are(store: LangGraphCheckpointStore) -> None:
    """Of the same type, too, on forks as well: savers keep some of them in forms of their own."""
    store.saver.serde = make_serializer([(Colour.__module__, "Colour")])
    first = checkpoint("t", 0, **SIMPLE)
    store.save(first)
    store.fork("t", first.checkpoint_id, "u")
    store.copy("t", first.checkpoint_id, "v")
    for thread in "tuv":
        found = store.load(thread, first.checkpoint_id).channel_values
        assert {key: repr(value) for key, value in found.items()} == {
            key: repr(value) for key, value in SIMPLE.items()
        }


def test_what_is_not_there_is_said(store: LangGraphCheckpointStore) -> None:
    """`load` and `fork` raise; `latest`, `history` and `exists` answer."""
    missing = new_id()
    for act in (lambda: store.load("t", missing), lambda: store.fork("t", missing, "u")):
        with pytest.raises(CheckpointError, match=missing):
            act()
    assert store.latest("t") is None
    assert store.history("t") == []
    assert not store.exists("t", missing)


def test_history_is_oldest_first_and_latest_its_end(store: LangGraphCheckpointStore) -> None:
    """By thread; another thread's checkpoints do not show."""
    saved = [checkpoint("t", step, log=[step]) for step in range(3)]
    for one in (*saved, checkpoint("other", 9)):
        store.save(one)
    assert [c.checkpoint_id for c in store.history("t")] == [c.checkpoint_id for c in saved]
    latest = store.latest("t")
    assert latest is not None
    assert latest.checkpoint_id == saved[-1].checkpoint_id
    assert store.exists("t", saved[0].checkpoint_id)
    assert not store.exists("other", saved[0].checkpoint_id)


def test_parents_are_those_of_the_history(store: LangGraphCheckpointStore) -> None:
    """Without those of subgraphs."""
    for thread in ("one", "t", "other"):
        stopped_beside_siblings(store, thread)
    put_inside(store, INNER, 0)  # in thread t
    expected = {
        (thread, found.checkpoint_id): found.parent_id
        for thread in ("one", "t")
        for found in store.history(thread)
    }
    assert len(expected) == 6
    assert store.parents(["one", "unknown", "t"]) == expected
    assert store.parents([]) == {}


def test_delete_takes_the_whole_thread(store: LangGraphCheckpointStore) -> None:
    """An unknown thread is no error; other threads stay."""
    store.delete("nobody")
    head = stopped_beside_siblings(store, "t")
    store.fork("t", head, "u")
    store.delete("t")
    assert store.history("t") == []
    assert sorted(resumed(store, "u")) == ["a", "gate", "in", "x", "y"]
    store.delete("u")
    assert store.latest("u") is None


def test_fork_carries_the_head_with_its_pending_writes(store: LangGraphCheckpointStore) -> None:
    """Same id, no parent, siblings not run again; the source is as it was."""
    head = stopped_beside_siblings(store, "t")
    before = store.history("t")
    store.fork("t", head, "u")
    copy = store.latest("u")
    assert copy is not None
    assert (copy.checkpoint_id, copy.parent_id, len(store.history("u"))) == (head, None, 1)
    assert copy.pending_tasks == store.load("t", head).pending_tasks
    assert copy.metadata["wtb_forked_from"] == "t"
    assert sorted(resumed(store, "u")) == ["a", "gate", "in", "x", "y"]
    assert store.history("t") == before


def test_a_fork_without_writes_runs_the_next_step_anew(store: LangGraphCheckpointStore) -> None:
    """From the middle of a thread that went on: neither what is pending there nor what follows."""
    head = stopped_beside_siblings(store, "t")
    resumed(store, "t")
    store.fork("t", head, "u", with_writes=False)
    copy = store.latest("u")
    assert copy is not None
    assert (copy.checkpoint_id, copy.parent_id, copy.pending_tasks) == (head, None, ())
    assert len(store.history("u")) == 1
    nodes = {"x": say("new x"), "y": say("new y"), "gate": say("gate")}
    state = graph(store, nodes).invoke(None, config_for("u"), durability="sync")
    assert sorted(state["log"]) == ["a", "gate", "in", "new x", "new y"]


def test_forking_twice_is_forking_once(store: LangGraphCheckpointStore) -> None:
    """A crash between fork and ledger repeats it."""
    head = stopped_beside_siblings(store, "t")
    store.fork("t", head, "u")
    store.fork("t", head, "u")
    assert len(store.history("u")) == 1
    assert sorted(resumed(store, "u")) == ["a", "gate", "in", "x", "y"]


def test_forks_of_forks_keep_task_paths(store: LangGraphCheckpointStore) -> None:
    """Pending writes are applied in the order of their paths."""
    head = stopped_beside_siblings(store, "t")
    store.fork("t", head, "u")
    store.fork("u", head, "v")
    paths = [store.task_paths(store.tuple_of(thread, head)) for thread in "tuv"]
    assert paths[0] == paths[1] == paths[2]
    assert all(path for path in paths[0].values())
    assert resumed(store, "v") == resumed(store, "u")


def test_rewind_removes_what_the_ledger_does_not_know(store: LangGraphCheckpointStore) -> None:
    """Newer checkpoints of every namespace, and pending writes of tasks that are not named."""
    head = stopped_beside_siblings(store, "t")
    tasks = store.load("t", head).pending_tasks
    resumed(store, "t")
    inner = checkpoint("t", 0, log=[])
    stored = store.tuple_of("t", head).checkpoint
    store.saver.put(
        {"configurable": {"thread_id": "t", "checkpoint_ns": "sub:1"}},
        {**stored, "id": inner.checkpoint_id},
        {"step": 0},
        stored["channel_versions"],
    )
    store.rewind("t", head, tasks)
    latest = store.latest("t")
    assert latest is not None
    assert (latest.checkpoint_id, latest.pending_tasks) == (head, tasks)
    assert (
        store.saver.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": "sub:1"}})
        is None
    )
    store.rewind("t", head, tasks[:1])
    assert store.load("t", head).pending_tasks == tasks[:1]
    store.rewind("t", head, ())
    assert store.load("t", head).pending_tasks == ()


INNER = "sub:1"


def put_inside(store: LangGraphCheckpointStore, namespace: str, step: int) -> CheckpointId:
    """A checkpoint of a subgraph in thread t, with a pending write of one task."""
    saved = checkpoint("t", step)
    config = store.saver.put(
        config_for("t", namespace=namespace),
        {
            "v": 4,
            "id": saved.checkpoint_id,
            "ts": "2026-01-01T00:00:00+00:00",
            "channel_values": {"log": [step]},
            "channel_versions": {"log": "1"},
            "versions_seen": {},
        },
        {"step": step},
        {"log": "1"},
    )
    store.saver.put_writes(config, [("log", ["pending"])], f"task{step}", "path")
    return saved.checkpoint_id


def inside(store: LangGraphCheckpointStore, thread: str, namespace: str) -> tuple[Any, ...] | None:
    """(checkpoint, tasks with pending writes) where a subgraph stands."""
    found = store.saver.get_tuple(config_for(thread, namespace=namespace))
    if found is None:
        return None
    return found.checkpoint["id"], [task for task, *_ in found.pending_writes or ()]


def test_fork_carries_the_subgraphs_it_is_told(store: LangGraphCheckpointStore) -> None:
    """Where they stand, with their pending writes; no others."""
    head = stopped_beside_siblings(store, "t")
    inner, _ = put_inside(store, INNER, 0), put_inside(store, "other:1", 0)
    store.fork("t", head, "u", {INNER: inner})
    assert inside(store, "u", INNER) == (inner, ["task0"])
    assert inside(store, "u", "other:1") is None
    latest = store.latest("u")
    assert latest is not None
    assert latest.checkpoint_id == head


def test_rewind_puts_subgraphs_back(store: LangGraphCheckpointStore) -> None:
    """To the checkpoint that is named, without what is not; unnamed ones lose what is newer."""
    head = stopped_beside_siblings(store, "t")
    tasks = store.load("t", head).pending_tasks
    first = put_inside(store, INNER, 0)
    put_inside(store, INNER, 1)
    put_inside(store, "other:1", 0)
    store.rewind("t", head, [*tasks, "task0"], {INNER: first})
    assert inside(store, "t", INNER) == (first, ["task0"])
    assert inside(store, "t", "other:1") is None
    store.rewind("t", head, tasks, {INNER: first})
    assert inside(store, "t", INNER) == (first, [])
    assert store.load("t", head).pending_tasks == tasks


def test_two_stores_may_write_one_file(tmp_path: Path) -> None:
    """As two processes do."""
    stores = [SqliteCheckpointStore(tmp_path / "c.db") for _ in range(2)]
    try:
        for number in range(10):
            stores[number % 2].save(checkpoint("t", number))
        assert [c.step for c in stores[0].history("t")] == list(range(10))
    finally:
        for one in stores:
            one.close()


def test_faults_of_the_file_are_checkpoint_errors(tmp_path: Path) -> None:
    """A file that is no database, and one that was closed."""
    (tmp_path / "c.db").write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(CheckpointError, match="not a database"):
        SqliteCheckpointStore(tmp_path / "c.db")
    closed = SqliteCheckpointStore(tmp_path / "d.db")
    closed.close()
    saver = RecordingSaver(closed.saver)
    for act in (
        lambda: closed.latest("t"),
        lambda: saver.get_tuple(config_for("t")),
        lambda: asyncio.run(saver.aput_writes(config_for("t", new_id()), [("a", 1)], "task")),
    ):
        with pytest.raises(CheckpointError):
            act()


@checkpointer_test(name="recording over sqlite")
async def over_sqlite() -> AsyncGenerator[RecordingSaver, None]:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    yield RecordingSaver(SqliteSaver(connection))
    connection.close()


@checkpointer_test(name="recording over memory")
async def over_memory() -> AsyncGenerator[RecordingSaver, None]:
    yield RecordingSaver(InMemorySaver())


@pytest.mark.parametrize("registered", [over_sqlite, over_memory], ids=["sqlite", "memory"])
def test_the_recording_saver_conforms(registered: Any) -> None:
    """LangGraph's own conformance suite: every base capability."""
    check_conformance(registered)


def test_the_recording_saver_conforms_over_postgresql(postgres_url: str) -> None:
    """The same."""

    @checkpointer_test(name="recording over postgresql")
    async def over_postgres() -> AsyncGenerator[RecordingSaver, None]:
        store = PostgresCheckpointStore(postgres_url)
        yield RecordingSaver(store.saver)
        store.close()

    check_conformance(over_postgres)


def check_conformance(registered: Any) -> None:
    report = asyncio.run(validate(registered))
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert report.passed_all_base(), failures
