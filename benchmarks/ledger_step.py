"""What recording one super-step costs: a unit of work of the ledger against bare sqlite3.

    python benchmarks/ledger_step.py [steps]

The floor writes the same number of rows, of about the same size, into tables with one key each, in
one WAL transaction with `synchronous=FULL`. The two alternate, so that both meet the same disk.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit, FileMemento
from wtb_prefect.domain.identifiers import BlobId, CheckpointId, digest
from wtb_prefect.domain.node_boundary import BoundaryStatus, NodeBoundary
from wtb_prefect.domain.outbox import OutboxEvent, OutboxEventType
from wtb_prefect.domain.workflow import TestWorkflow
from wtb_prefect.infrastructure.database.engine import open_engine
from wtb_prefect.infrastructure.database.schema import upgrade
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork

STEPS_PER_EXECUTION = 20
NOW = datetime.now(UTC)


def prepare(engine: Engine) -> None:
    """A workflow, so that executions have one."""
    workflow = TestWorkflow(
        workflow_id="w", name="w", import_path=None, fingerprint="f", nodes=(), edges=()
    )
    with SqlAlchemyUnitOfWork(engine, write=True) as uow:
        uow.workflows.save(workflow)
        uow.commit()


def execution(number: int) -> Execution:
    """The execution that a step of that number belongs to."""
    return Execution(
        execution_id=digest("execution", number // STEPS_PER_EXECUTION)[:36],
        workflow_id="w",
        kind=ExecutionKind.RUN,
        status=ExecutionStatus.RUNNING,
        choices={"retrieve": "bm25", "answer": "short"},
        created_at=NOW,
    )


def boundary(execution_id: str, number: int) -> NodeBoundary:
    """One visit of one node."""
    return NodeBoundary(
        execution_id=execution_id,
        task_id=digest("task", number)[:36],
        node="retrieve",
        step=number % STEPS_PER_EXECUTION,
        variant="bm25",
        fingerprint=digest("code"),
        status=BoundaryStatus.COMPLETED,
        entry_checkpoint_id=CheckpointId(digest("checkpoint", number - 1)[:36]),
        exit_checkpoint_id=CheckpointId(digest("checkpoint", number)[:36]),
        started_at=NOW,
        duration=0.01,
        calls=1,
    )


def link(execution_id: str, number: int, commit_id: str | None) -> CheckpointFileLink:
    """The files of one checkpoint."""
    return CheckpointFileLink(
        execution_id=execution_id,
        checkpoint_id=CheckpointId(digest("checkpoint", number)[:36]),
        commit_id=commit_id,
        pending=False,
        sequence=number,
        step=number % STEPS_PER_EXECUTION,
        created_at=NOW,
        nodes=("retrieve",),
    )


def events(execution_id: str, number: int) -> list[OutboxEvent]:
    """The three claims of one step."""
    kinds = list(OutboxEventType)[:3]
    return [
        OutboxEvent(
            event_id=digest("event", number, kind)[:36],
            type=kind,
            aggregate_id=execution_id,
            payload={"checkpoint_id": digest("checkpoint", number)[:36], "step": number},
            created_at=NOW,
        )
        for kind in kinds
    ]


def commit(number: int) -> FileCommit:
    """One changed file."""
    memento = FileMemento(path="out/answer.txt", blob_id=BlobId(digest("blob", number)), size=1000)
    return FileCommit(
        commit_id=digest("commit", number),
        parent_id=None,
        execution_id=None,
        changed=(memento,),
        removed=(),
        created_at=NOW,
    )


def ledger_step(engine: Engine, *, files: bool) -> Callable[[int], Callable[[], None]]:
    """Makes the unit of work of a step; its objects are built outside the timing."""

    def prepare_step(number: int) -> Callable[[], None]:
        run = execution(number)
        first = number % STEPS_PER_EXECUTION == 0
        commits = [commit(number)] if files else []
        visit = boundary(run.execution_id, number)
        claims = events(run.execution_id, number)
        tie = link(run.execution_id, number, commits[0].commit_id if files else None)

        def step() -> None:
            with SqlAlchemyUnitOfWork(engine, write=True) as uow:
                if first:
                    uow.executions.save(run)
                for one in commits:
                    uow.file_commits.add(one)
                uow.node_boundaries.save_many([visit])
                uow.checkpoint_files.save(tie)
                uow.executions.advance(
                    run.execution_id, tie.checkpoint_id, tie.step, tie.commit_id, 1
                )
                uow.outbox.add_many(claims)
                uow.commit()

        return step

    return prepare_step


def floor_step(connection: sqlite3.Connection) -> Callable[[int], Callable[[], None]]:
    """The same rows without a ledger: an update, two inserts and three events."""

    def prepare_step(number: int) -> Callable[[], None]:
        run = number // STEPS_PER_EXECUTION
        text = "x" * 250

        def step() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR IGNORE INTO execution VALUES (?, ?)", (run, text))
            connection.execute("INSERT INTO boundary VALUES (?, ?)", (number, text))
            connection.execute("INSERT INTO link VALUES (?, ?)", (number, text))
            connection.execute("UPDATE execution SET body = ? WHERE id = ?", (text, run))
            rows = [(number * 3 + n, text) for n in range(3)]
            connection.executemany("INSERT INTO event VALUES (?, ?)", rows)
            connection.execute("COMMIT")

        return step

    return prepare_step


def open_floor(path: Path) -> sqlite3.Connection:
    """A bare database with the ledger's durability."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for table in ("execution", "boundary", "link", "event"):
        connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, body TEXT)")
    return connection


def timed(step: Callable[[], None]) -> float:
    """Milliseconds of one step."""
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1000


def line(name: str, times: list[float]) -> str:
    """The quantiles of a series."""
    ordered = sorted(times)
    p50, p99 = (ordered[int(len(ordered) * q)] for q in (0.5, 0.99))
    return f"{name:<28} p50 {p50:6.3f} ms   p99 {p99:6.3f} ms"


def main() -> None:
    """Prints the three lines."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, Callable[[int], Callable[[], None]]] = {
            "sqlite3 floor": floor_step(open_floor(Path(folder, "floor.db")))
        }
        for name, files in (("ledger step", False), ("ledger step, file commit", True)):
            engine = open_engine(f"sqlite:///{folder}/{len(kinds)}.db")
            upgrade(engine)
            prepare(engine)
            kinds[name] = ledger_step(engine, files=files)
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(steps):
            for name, prepare_step in kinds.items():
                times[name].append(timed(prepare_step(number)))
        for name, series in times.items():
            print(line(name, series))


if __name__ == "__main__":
    main()
