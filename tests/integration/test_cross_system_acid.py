"""Ledger, checkpoints and files are three stores, and one truth: whatever fails, what the ledger
says is there, and what it does not say can be taken back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from controlled import START, STRAIGHT, Place

from wtb_prefect import TestBench
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.errors import InfrastructureError
from wtb_prefect.infrastructure.checkpoints.recording_saver import RecordingSaver
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork
from wtb_prefect.infrastructure.file_tracking.blob_store import LocalBlobStore

WATCH = """
import sqlite3, sys, time
ledger = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
seen, end = set(), time.monotonic() + 60
print("ready", flush=True)
while time.monotonic() < end:
    ledger.execute("BEGIN")
    links = {row[0] for row in ledger.execute(
        "SELECT checkpoint_id FROM checkpoint_files WHERE pending = 0 AND namespace = ''")}
    exits = {row[0] for row in ledger.execute(
        "SELECT exit_checkpoint_id FROM node_boundaries "
        "WHERE namespace = '' AND exit_checkpoint_id IS NOT NULL")}
    claims = {row[0] for row in ledger.execute(
        "SELECT event_id FROM outbox_events WHERE type = 'CHECKPOINT_VERIFY'")}
    heads = {row[0] for row in ledger.execute(
        "SELECT head FROM executions WHERE head IS NOT NULL")}
    ended = ledger.execute(
        "SELECT count(*) FROM executions WHERE status = 'completed'").fetchone()[0]
    ledger.execute("COMMIT")
    assert exits <= links and heads <= links, (exits - links, heads - links)
    assert {claim.rsplit("/", 1)[1] for claim in claims} == links
    seen.add(len(links))
    if ended == 5:
        break
print(len(seen), ended)
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def assert_stores_agree(bench: TestBench) -> None:
    """Every checkpoint and every file that the ledger names is there, whole, and claimed."""
    session = bench.session
    with session.open_uow() as uow:
        executions = uow.executions.list(workflow_id=session.project.workflow_id)
        claims = {event.event_id for event in uow.outbox.list(limit=10_000)}
        links = {e.execution_id: uow.checkpoint_files.list(e.execution_id) for e in executions}
        commits = {link.commit_id for found in links.values() for link in found} - {None}
        trees = [uow.file_commits.tree(str(commit)) for commit in commits]
    for execution in executions:
        for link in links[execution.execution_id]:
            if link.namespace:
                continue
            values = session.engine.state(thread_id(execution.execution_id), link.checkpoint_id)
            assert values.checkpoint_id == link.checkpoint_id
            own = link.parent_checkpoint_id is not None or link.step == -1
            if own and not link.pending:
                claim = f"CHECKPOINT_VERIFY/{execution.execution_id}/{link.checkpoint_id}"
                assert claim in claims
    for tree in trees:
        session.tracker.verify(tree.values())


class Failing:
    """Fails once, at the nth call."""

    def __init__(self, call: Callable[..., Any], number: int) -> None:
        self._call = call
        self._left = number
        self.calls = 0

    def __get__(self, instance: Any, owner: type) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self._left:
                raise InfrastructureError("the disk is gone")
            return self._call(instance, *args, **options)

        return run


@pytest.mark.parametrize("number", [1, 2, 5, 9])
@pytest.mark.parametrize(
    ("owner", "method"),
    [(LocalBlobStore, "flush"), (RecordingSaver, "aput"), (SqlAlchemyUnitOfWork, "commit")],
    ids=["blobs", "checkpoints", "ledger"],
)
def test_whichever_store_fails_the_ledger_says_nothing_false(
    place: Place, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, number: int
) -> None:
    """And the execution goes on from there to the same end, at most one body again."""
    with place.bench() as bench:
        held = bench.run(initial_state=START, breakpoints=["a"])
        failing = Failing(getattr(owner, method), number)
        with monkeypatch.context() as patched:
            patched.setattr(owner, method, failing)
            with pytest.raises(InfrastructureError, match="the disk is gone"):
                bench.resume(held.execution_id, breakpoints=[])
        assert failing.calls >= number
        assert_stores_agree(bench)
        done = bench.execution(held.execution_id)
        if done.status != "completed":
            done = bench.resume(held.execution_id)
        assert (done.status, done.state["log"]) == ("completed", STRAIGHT)
        assert_stores_agree(bench)
        bodies = place.bodies()
        # x and y run side by side: both are in flight.
        assert len(bodies) <= len(STRAIGHT) - 2 + 2, bodies


def test_moves_leave_three_stores_that_agree(place: Place) -> None:
    with place.bench() as bench:
        done = bench.run(initial_state=START)
        bench.rollback(done.execution_id, node="b")
        assert_stores_agree(bench)
        bench.resume(done.execution_id)
        point = bench.history(done.execution_id)[3].checkpoint_id
        bench.branch(done.execution_id, point, variants={"d": "loud"})
        bench.batch({"d": "*"}, [{"id": "q", "state": START}], runner="inline")
        assert_stores_agree(bench)


def test_nobody_sees_half_a_super_step(place: Place) -> None:
    """Another process reads the ledger all the while."""
    with place.bench() as bench:
        bench.run(initial_state=START, breakpoints=["a"])  # makes the ledger
        watching = subprocess.Popen(
            [sys.executable, "-c", WATCH, str(place.folder / "w.db")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        watching.stdout.readline()
        for _ in range(5):
            bench.run(initial_state={**START, "rounds": 4})
        out, err = watching.communicate(timeout=90)
    assert watching.returncode == 0, err
    states, ended = map(int, out.split())
    assert (states > 5, ended) == (True, 5)
