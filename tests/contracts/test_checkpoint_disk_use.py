"""What checkpoints take and how it is given back: the same in memory and in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import START, StateGraph

from wtb_prefect.domain.checkpoint import StoredCheckpoint
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.infrastructure.checkpoints import disk_use
from wtb_prefect.infrastructure.checkpoints.langgraph_store import (
    LangGraphCheckpointStore,
    MemoryCheckpointStore,
    SqliteCheckpointStore,
    config_for,
)
from wtb_prefect.infrastructure.checkpoints.postgres_store import PostgresCheckpointStore

BIG = "x" * 100_000


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LangGraphCheckpointStore]:
    """All adapters."""
    made: LangGraphCheckpointStore
    if request.param == "memory":
        made = MemoryCheckpointStore()
    elif request.param == "postgres":
        made = PostgresCheckpointStore(request.getfixturevalue("postgres_url"))
    else:
        made = SqliteCheckpointStore(tmp_path / "c.db")
    yield made
    made.close()


def new_id() -> CheckpointId:
    return CheckpointId(str(uuid6(clock_seq=-2)))


def fill(
    store: LangGraphCheckpointStore, thread: str, steps: int, text: str = "x"
) -> list[CheckpointId]:
    ids: list[CheckpointId] = []
    for step in range(steps):
        ids.append(new_id())
        store.save(
            StoredCheckpoint(
                checkpoint_id=ids[-1],
                thread_id=thread,
                parent_id=ids[-2] if step else None,
                step=step,
                channel_values={"text": [text]},
                metadata={},
            )
        )
        store.saver.put_writes(config_for(thread, ids[-1]), [("text", [text])], f"task{step}")
    return ids


def in_subgraph(store: LangGraphCheckpointStore, thread: str, source: CheckpointId) -> CheckpointId:
    """A checkpoint of a subgraph in the same thread."""
    inner = new_id()
    stored = store.tuple_of(thread, source).checkpoint
    store.saver.put(
        {"configurable": {"thread_id": thread, "checkpoint_ns": "sub"}},
        {**stored, "id": inner},
        {"step": 0},
        stored["channel_versions"],
    )
    return inner


def test_sizes_are_those_of_values_and_writes(store: LangGraphCheckpointStore) -> None:
    """By thread; a thread that is not there is not in the answer."""
    fill(store, "small", 2)
    fill(store, "large", 2, BIG)
    found = store.sizes(["small", "large", "nobody"])
    assert found.keys() == {"small", "large"}
    assert 0 < found["small"] < 10_000
    assert 4 * len(BIG) <= found["large"] + 2 * len(BIG) <= 7 * len(BIG)
    assert store.sizes([]) == {}


def test_sizes_of_more_threads_than_a_statement_takes(store: LangGraphCheckpointStore) -> None:
    fill(store, "t", 1)
    many = [f"nobody{number}" for number in range(2500)]
    assert store.sizes([*many, "t"]).keys() == {"t"}


def test_many_threads_go_at_once(store: LangGraphCheckpointStore) -> None:
    """Others stay; what is gone already is no error."""
    for thread in ("a", "b", "c"):
        fill(store, thread, 2)
    store.delete_many(["a", "b", "nobody", "a"])
    assert store.sizes(["a", "b", "c"]).keys() == {"c"}
    assert len(store.history("c")) == 2


def test_pruning_leaves_what_is_kept(store: LangGraphCheckpointStore) -> None:
    """With its values and writes, and without a parent that is gone; a second time is nothing."""
    first, second, third = fill(store, "t", 3, BIG)
    other = fill(store, "other", 2)
    before = store.sizes(["t"])["t"]
    assert store.prune({"t": [third]}) == 2
    (left,) = store.history("t")
    assert (left.checkpoint_id, left.parent_id) == (third, None)
    assert left.channel_values == {"text": [BIG]}
    assert left.pending_tasks == ("task2",)
    assert not store.exists("t", first)
    assert store.sizes(["t"])["t"] <= before / 2
    assert store.prune({"t": [third]}) == 0
    assert [c.checkpoint_id for c in store.history("other")] == other
    store.fork("t", third, "u")
    assert store.load("u", third).channel_values == {"text": [BIG]}
    assert second not in {c.checkpoint_id for c in store.history("t")}


def test_pruning_leaves_the_end_of_a_subgraph(store: LangGraphCheckpointStore) -> None:
    """A subgraph with a memory of its own goes on from there."""
    ids = fill(store, "t", 2)
    older, newest = in_subgraph(store, "t", ids[0]), in_subgraph(store, "t", ids[1])
    assert store.prune({"t": [ids[1]]}) == 2
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "sub"}}
    found = store.saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["id"] == newest
    config["configurable"]["checkpoint_id"] = older
    assert store.saver.get_tuple(config) is None


def extend(left: list[str], writes: Sequence[list[str]]) -> list[str]:
    return left + [item for write in writes for item in write]


class DeltaState(TypedDict):
    log: Annotated[list[str], DeltaChannel(extend)]


@pytest.mark.filterwarnings("ignore")
def test_what_is_rebuilt_from_earlier_checkpoints_keeps_them(
    store: LangGraphCheckpointStore,
) -> None:
    """A DeltaChannel's value is not in the last checkpoint."""
    builder = StateGraph(DeltaState)
    builder.add_node("a", lambda state: {"log": ["a"]})
    builder.add_node("b", lambda state: {"log": ["b"]})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    graph = builder.compile(checkpointer=store.saver)
    graph.invoke({"log": ["in"]}, config_for("t"), durability="sync")
    end = store.latest("t")
    assert end is not None
    assert store.prune({"t": [end.checkpoint_id]}) == 0
    assert graph.get_state(config_for("t")).values == {"log": ["in", "a", "b"]}


def test_space_comes_back(tmp_path: Path) -> None:
    """Deleting makes free pages; compacting makes the file smaller, journal included."""
    store = SqliteCheckpointStore(tmp_path / "c.db")
    fill(store, "kept", 1)
    fill(store, "gone", 20, BIG)
    full = store.space()
    assert full.on_disk > 30 * len(BIG)
    store.delete_many(["gone"])
    assert store.space().free > 30 * len(BIG)
    assert store.compact() is None
    after = store.space()
    assert (after.on_disk < len(BIG), after.free) == (True, 0)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < len(BIG)
    assert len(store.history("kept")) == 1
    store.close()


def test_a_file_in_use_is_not_compacted_and_says_so(tmp_path: Path) -> None:
    """What is free inside is used again; nothing is lost, and nobody waits long."""
    store = SqliteCheckpointStore(tmp_path / "c.db")
    fill(store, "gone", 5, BIG)
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert disk_use.compact(store._connection, busy_ms=50) == "database is locked"
    other.execute("ROLLBACK")
    other.execute("BEGIN")
    other.execute("SELECT * FROM checkpoints").fetchone()
    store.delete_many(["gone"])
    assert disk_use.compact(store._connection, busy_ms=50) is not None
    other.execute("ROLLBACK")
    other.close()
    assert store.compact() is None
    store.close()
