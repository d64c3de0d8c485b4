"""Every kind of event, told by the action that makes it true."""

from __future__ import annotations

import inspect
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.event_project import SOURCE
from wtb_prefect import TestBench, events
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.events import DomainEvent
from wtb_prefect.infrastructure.workflow.graph_source import load_attribute

if TYPE_CHECKING:
    from wtb_prefect.api.server import PrefectServer

pytestmark = [
    # Prefect leaves client sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CASES = [{"id": "good", "state": {"log": ["in"]}}, {"id": "bad", "state": {"log": ["bad"]}}]
MATRIX = {"last": "*"}
KINDS = [
    kind
    for name, kind in vars(events).items()
    if inspect.isclass(kind) and issubclass(kind, DomainEvent) and "name" in vars(kind)
]


def bench_in(folder: Path, name: str = "project") -> TestBench:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "event_project.py"
    file.write_text(SOURCE)
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "note.txt").write_text("hello")
    return TestBench(load_attribute(f"{file}:{name}"))


def damage_blobs(folder: Path) -> None:
    for blob in (folder / "out" / "blobs" / "objects").glob("*/*"):
        blob.chmod(0o644)
        blob.write_text("damaged")


def run_a_batch(folder: Path) -> list[DomainEvent]:
    """Shared prefixes that fork, a failing cell, a retry, an answer from the cache."""
    with bench_in(folder) as bench:
        bench.batch(matrix=MATRIX, cases=CASES, runner="inline")
        bench.batch(matrix=MATRIX, cases=[{"id": "new", "state": {"log": ["in"]}}], runner="inline")
        return bench.events.history(DomainEvent)


def control_a_run(folder: Path) -> list[DomainEvent]:
    with bench_in(folder) as bench:
        held = bench.run(initial_state={"log": ["in"]}, breakpoints=["last"])
        bench.resume(held.execution_id)
        bench.rollback(held.execution_id, node="index")
        bench.resume(held.execution_id, breakpoints=["last"])  # its folder stays
        back = bench.rollback(held.execution_id, node="index")
        point = bench.history(back.execution_id)[-1].checkpoint_id
        bench.branch(back.execution_id, point, variants={"last": "loud"})
        bench.stop(back.execution_id)
        return bench.events.history(DomainEvent)


def crash_a_run(folder: Path) -> list[DomainEvent]:
    with bench_in(folder) as bench:
        held = bench.run(initial_state={"log": ["in"]}, breakpoints=["last"])
        damage_blobs(folder)
        with pytest.raises(FileTrackingError):
            bench.resume(held.execution_id)
        return bench.events.history(DomainEvent)


def lose_the_files_of_a_batch(folder: Path) -> list[DomainEvent]:
    with bench_in(folder) as bench:
        with pytest.raises(FileTrackingError):
            bench.batch(cases=CASES, runner="inline", on_plan=lambda _: damage_blobs(folder))
        return bench.events.history(DomainEvent)


def signalled(number: signal.Signals, ends_with: type[BaseException]) -> Any:
    def action(folder: Path) -> list[DomainEvent]:
        with bench_in(folder) as bench:
            (folder / "signal").write_text(str(int(number)))
            # As in a process of its own, whatever handler an earlier test has left.
            fresh = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            before = signal.signal(number, fresh)
            try:
                with pytest.raises(ends_with):
                    bench.batch(cases=CASES, runner="inline")
            finally:
                signal.signal(number, before)
            return bench.events.history(DomainEvent)

    return action


def lose_checkpoints(folder: Path) -> list[DomainEvent]:
    with bench_in(folder) as bench:
        run = bench.run(initial_state={"log": ["in"]}).execution_id
        bench.session.checkpoints.delete(f"wtb-{run}")
        with closing(sqlite3.connect(folder / "w.db")) as ledger:
            for _ in range(5):
                ledger.execute("UPDATE outbox_events SET status = 'PENDING', next_at = NULL")
                ledger.commit()
                bench.verify_outbox()
        return bench.events.history(DomainEvent)


ACTIONS: tuple[Callable[[Path], list[DomainEvent]], ...] = (
    run_a_batch,
    control_a_run,
    crash_a_run,
    lose_the_files_of_a_batch,
    lose_checkpoints,
    signalled(signal.SIGINT, KeyboardInterrupt),
    signalled(signal.SIGTERM, SystemExit),
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[DomainEvent]]:
    @cache
    def of(number: int) -> list[DomainEvent]:
        return ACTIONS[number](tmp_path_factory.mktemp(f"action-{number}"))

    return of


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not events.WorkerStarted])
def test_each_kind_is_told_by_a_real_action(
    kind: type[DomainEvent], told: Callable[[int], list[DomainEvent]]
) -> None:
    """`WorkerStarted` needs a runner with workers: see below."""
    found = [e for n in range(len(ACTIONS)) for e in told(n) if type(e) is kind]
    assert found, f"nothing tells {kind.__name__}: emit it or delete it"
    for event in found:
        assert event.subject
        assert event.name.partition(".")[0].isalpha()


@pytest.mark.parametrize("number", [5, 6], ids=["SIGINT", "SIGTERM"])
def test_what_a_signal_ends_is_told_to_be_paused(
    number: int, told: Callable[[int], list[DomainEvent]]
) -> None:
    """Every execution that began has ended, one way or another."""
    found = told(number)
    began = {e.execution_id for e in found if isinstance(e, events.ExecutionStarted)}
    ended = {e.execution_id: e for e in found if isinstance(e, events.ExecutionStopped)}
    assert began
    assert set(ended) == began
    paused = [e for e in ended.values() if isinstance(e, events.ExecutionPaused)]
    assert paused
    assert all(event.why for event in paused)


def test_a_batch_tells_its_story(told: Callable[[int], list[DomainEvent]]) -> None:
    batch_id = next(e.batch_id for e in told(0) if isinstance(e, events.BatchStarted))
    first = [e for e in told(0) if getattr(e, "batch_id", None) == batch_id]
    names = [event.name for event in first]
    assert names[0] == "batch.started"
    assert names[-1] == "batch.finished"
    assert names.count("variant.completed") == 2
    ended = {e.name: e for e in first}["batch.finished"]
    assert isinstance(ended, events.BatchFinished)
    assert ended.cells == {"completed": 2, "failed": 2}
    forks = [e for e in first if isinstance(e, events.ExecutionForked)]
    assert {e.execution_id for e in forks} == {
        e.parent_id for e in first if isinstance(e, events.ExecutionStarted) and e.parent_id
    }
    bodies = [e for e in first if isinstance(e, events.NodeStarted)]
    assert len(bodies) == ended.node_executions
    failed = {(e.node, e.error) for e in first if isinstance(e, events.NodeFailed)}
    hiccup = ("work", "node 'work': ConnectionResetError: hiccup")
    assert failed == {hiccup, ("last", "node 'last': ValueError: bad")}
    skipped = {e.node: e.reason for e in told(0) if isinstance(e, events.NodeSkipped)}
    assert skipped == {"index": "cached"}


def test_nothing_is_told_before_the_ledger_has_it(tmp_path: Path) -> None:
    """A handler reads the ledger at every event of an execution that has an end."""
    seen: list[tuple[str, str]] = []
    with bench_in(tmp_path) as bench:

        def look(event: events.ExecutionStopped) -> None:
            with bench.session.open_uow() as uow:
                found = uow.executions.get(event.execution_id)
                lines = uow.audit_log.list(event.execution_id)
            assert found is not None
            seen.append((event.status, str(found.status)))
            assert [line.action for line in lines].count(event.name) == 1

        bench.events.subscribe(events.ExecutionStopped, look)
        bench.batch(matrix=MATRIX, cases=CASES, runner="inline")
    assert len(seen) == 6
    assert all(told == kept for told, kept in seen)


def test_the_audit_log_says_the_same(tmp_path: Path) -> None:
    with bench_in(tmp_path) as bench:
        bench.batch(matrix=MATRIX, cases=CASES, runner="inline")
        told = [e for e in bench.events.history(DomainEvent) if not e.of_steps]
        with bench.session.open_uow() as uow:
            lines = uow.audit_log.list()
    assert [(e.name, e.aggregate_id, e.at, e.details()) for e in told] == [
        (line.action, line.subject, line.at, dict(line.details)) for line in lines
    ]


@pytest.mark.prefect
class TestMirror:
    """What Prefect is told, with a real server and its thread runner."""

    @pytest.fixture(autouse=True)
    def _server(self, server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_API_URL", server.url)

    def test_executions_are_mirrored_and_steps_are_not(
        self, server: PrefectServer, tmp_path: Path
    ) -> None:
        with bench_in(tmp_path) as bench:
            bench.batch(matrix=MATRIX, cases=CASES, runner="threads", batch_id="plain")
            told = [e for e in bench.events.history(DomainEvent) if not e.of_steps]
        assert any(isinstance(e, events.WorkerStarted) for e in told)
        found = _mirrored(server, "plain", len(told))
        assert sorted(found) == sorted((f"wtb.{e.name}", e.event_id) for e in told)

        from wtb_prefect.api.events import emit

        for event in told:
            emit(event)
        emit(
            extra := events.VariantCompleted(
                at=told[-1].at, batch_id="plain", combination="x", cells={}
            )
        )
        again = _mirrored(server, "plain", len(told) + 1)
        assert sorted(again) == sorted([*found, ("wtb.variant.completed", extra.event_id)])

    def test_steps_are_mirrored_when_asked(self, server: PrefectServer, tmp_path: Path) -> None:
        with bench_in(tmp_path, "talkative") as bench:
            bench.batch(cases=CASES[:1], runner="threads", batch_id="steps")
            told = bench.events.history(DomainEvent)
        asked = [e for e in told if getattr(e, "batch_id", None) == "steps"]
        names = {name for name, _ in _mirrored(server, "steps", len(asked))}
        assert {"wtb.node.started", "wtb.node.completed", "wtb.checkpoint.created"} <= names


def _mirrored(server: PrefectServer, batch: str, count: int) -> list[tuple[str, str]]:
    """(name, id) of the events about a batch, when there are so many: the server takes a while."""
    end = time.monotonic() + 60
    wanted = {"any_resource": {"id": [f"wtb.batch.{batch}"]}}
    while True:
        page = httpx.post(f"{server.url}/events/filter", json={"filter": wanted}).json()
        found = page["events"]
        while page.get("next_page"):
            page = httpx.get(page["next_page"]).json()
            found += page["events"]
        if len(found) >= count or time.monotonic() > end:
            return [(event["event"], event["id"]) for event in found]
        time.sleep(0.3)
