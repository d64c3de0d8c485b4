"""The small operations that faults are injected into; each can be run again, and ends the same.

They run in children of a warm process (`warm_child`), one child an attempt.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench_project import HERE

from wtb_prefect import TestBench
from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.file_processing import FileCommit, commit_id_of
from wtb_prefect.infrastructure.system_clock import SystemClock

INPUT = {"log": ["in"]}
ABOUT = HERE / "about.json"
BLOBS = HERE / "out/blobs/objects"


@dataclass(frozen=True, slots=True)
class Operation:
    """`prepare` leaves the stores as they are before it, `run` does it, as often as asked, and
    `outcome` is what can be seen of its end. `halfway` says what must not be seen right after a
    fault, told whether it killed.
    """

    prepare: Callable[[TestBench], None]
    run: Callable[[TestBench], None]
    outcome: Callable[[TestBench], Any]
    halfway: Callable[[TestBench, bool], list[str]] = lambda *_: []


class ShiftedClock(SystemClock):
    """The real clock, some hours away."""

    def __init__(self, hours: float) -> None:
        self._by = timedelta(hours=hours)

    def now(self) -> datetime:
        return super().now() + self._by


def shift_clock(bench: TestBench, hours: float) -> None:
    """The bench's session gets another time; what it wrote before keeps the old one."""
    sessions = bench._sessions
    at = sessions.own()
    sessions._own = replace(at, clock=ShiftedClock(hours))  # type: ignore[attr-defined]


def note(**about: Any) -> None:
    ABOUT.write_text(json.dumps({**noted(), **about}))


def noted() -> dict[str, Any]:
    found = json.loads(ABOUT.read_text()) if ABOUT.exists() else {}
    return dict(found)


def ledger(statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(HERE / "w.db", timeout=30)) as connection:
        found = connection.execute(statement, values).fetchall()
        connection.commit()
    return found


def blob_path(blob_id: str) -> Path:
    return BLOBS / blob_id[:2] / blob_id[2:]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def files_of(bench: TestBench, execution_id: str, at: str | None = None) -> dict[str, list[Any]]:
    """Path -> mode and content, of the recorded files."""
    return {
        path: [found.mode, digest_of(blob_path(found.blob_id))]
        for path, found in sorted(bench.files(execution_id, at).items())
    }


def folder_holds(folder: Path) -> dict[str, list[Any]]:
    """The same of a folder."""
    return {
        str(path.relative_to(folder)): [path.lstat().st_mode & 0o777, digest_of(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def seen(bench: TestBench, execution_id: str) -> dict[str, Any]:
    """How an execution stands: status, state, next nodes, files."""
    found = bench.execution(execution_id)
    with bench.session.open_uow() as uow:
        row = uow.executions.get(found.execution_id)
    assert row is not None
    return {
        "status": str(found.status),
        "log": found.state["log"],
        "next": list(row.next_nodes),
        "files": files_of(bench, execution_id),
        "path": [list(point.nodes) for point in bench.history(execution_id)],
    }


def workspace_of(bench: TestBench, execution_id: str) -> Path:
    with bench.session.open_uow() as uow:
        row = uow.executions.get(execution_id)
    assert row is not None
    workspace = bench.session.workspaces.open(execution_id, label_of(row), {})
    return Path(workspace._folder)  # type: ignore[attr-defined]


# A file commit: the last two super-steps of a run.


def held_before_c(bench: TestBench) -> None:
    held = bench.run(initial_state=INPUT, breakpoints=["c"])
    note(id=held.execution_id)


def run_to_the_end(bench: TestBench) -> None:
    done = bench.execution(noted()["id"])
    if done.status != "completed":
        done = bench.resume(noted()["id"], breakpoints=[])
    assert done.status == "completed", done  # a body that failed is not acknowledged


def noted_execution(bench: TestBench) -> Any:
    return seen(bench, noted()["id"])


def run_and_bodies(bench: TestBench) -> Any:
    """A fault costs at most the one body that was in flight."""
    bodies = (HERE / "bodies.txt").read_text().split()
    return [noted_execution(bench), set(bodies) == set("abcd"), len(bodies) <= 5]


# A workspace fork: a branch of a run that is over, and the folder it begins with.


def ended_run(bench: TestBench) -> None:
    done = bench.run(initial_state=INPUT)
    at = next(p.checkpoint_id for p in bench.history(done.execution_id) if "c" in p.nodes)
    note(id=done.execution_id, at=at)


def _branches(bench: TestBench) -> list[str]:
    with bench.session.open_uow() as uow:
        return [e.execution_id for e in uow.executions.list() if e.execution_id != noted()["id"]]


def branch_and_fork(bench: TestBench) -> None:
    """The branch runs to its end in a folder of its own, and then gets another one."""
    if not (known := _branches(bench)):
        known = [bench.branch(noted()["id"], noted()["at"]).execution_id]
    if (done := bench.execution(known[0])).status != "completed":
        done = bench.resume(known[0])
    assert done.status == "completed", done
    with bench.session.open_uow() as uow:
        branch = uow.executions.get(known[0])
    assert branch is not None
    tree = CommitTree(bench.session.open_uow, branch.commit_id)
    bench.session.workspaces.open(branch.execution_id, label_of(branch), tree).path()


def whole_or_none(bench: TestBench, killed: bool) -> list[str]:
    """The folder is there with all the files that the branch begins with, or it is not there."""
    del killed
    begun = files_of(bench, noted()["id"], noted()["at"])
    for branch in _branches(bench):
        folder = workspace_of(bench, branch)
        if folder.exists() and not begun.items() <= folder_holds(folder).items():
            return [f"half a workspace: {sorted(folder_holds(folder))}"]
    return []


def branch_and_parent(bench: TestBench) -> Any:
    (branch,) = _branches(bench)
    folder = folder_holds(workspace_of(bench, branch))
    return [seen(bench, noted()["id"]), seen(bench, branch), folder]


# An update in place: a rollback, with the folder that is there put back.


def held_before_d(bench: TestBench) -> None:
    held = bench.run(initial_state=INPUT, breakpoints=["d"])
    at = next(p.checkpoint_id for p in bench.history(held.execution_id) if "a" in p.nodes)
    old = folder_holds(workspace_of(bench, held.execution_id))
    note(id=held.execution_id, at=at, old=old)


def old_or_new(bench: TestBench, killed: bool) -> list[str]:
    """A kill may come between two renames: then the ledger's claim stands, to be finished."""
    held = folder_holds(workspace_of(bench, noted()["id"]))
    if held in (noted()["old"], files_of(bench, noted()["id"])):
        return []
    query = "SELECT count(*) FROM outbox_events WHERE type = 'ROLLBACK_FILE_RESTORE' AND status = ?"
    claimed = ledger(query, "PENDING")[0][0]
    kept = list((HERE / "out/workspaces").rglob(".updating-*"))
    if killed and claimed and kept:
        return []
    return [f"a folder between old and new: {sorted(held)}, {claimed} claims, {kept}"]


def roll_back_to_a(bench: TestBench) -> None:
    """Also for one that died of it: whoever verifies claims finishes what it began."""
    with bench.session.open_uow() as uow:
        row = uow.executions.get(noted()["id"])
    assert row is not None
    if row.head != noted()["at"]:
        bench.rollback(noted()["id"], node="a")
    else:
        shift_clock(bench, 1)
        bench.verify_outbox()


def rolled_back(bench: TestBench) -> Any:
    return [noted_execution(bench), folder_holds(workspace_of(bench, noted()["id"]))]


# A step of the outbox.


def forgotten_claims(bench: TestBench) -> None:
    ended_run(bench)
    ledger(
        "UPDATE outbox_events SET status = 'PENDING', attempts = 0, next_at = NULL, "
        "lease_until = NULL, processed_at = NULL"
    )


def process(bench: TestBench) -> None:
    if (HERE / "again").exists():
        shift_clock(bench, 1)  # whoever died of it has held its lease until then
    bench.process_pending()


def claims(bench: TestBench) -> Any:
    rows = "SELECT event_id, status, lease_until FROM outbox_events ORDER BY event_id"
    return [[*row[:2], row[2] is not None and row[1] == "PENDING"] for row in ledger(rows)]


# A repair.


def damaged(bench: TestBench) -> None:
    """A content of a held run is cut short, and there is a thread of no execution."""
    held_before_d(bench)
    name = bench.files(noted()["id"])["changed.txt"].blob_id
    blob_path(name).chmod(0o644)
    blob_path(name).write_bytes(b"x")
    where = bench.session.project.locations.checkpoints
    with closing(sqlite3.connect(where)) as connection:
        for table in ("checkpoints", "writes"):
            info = connection.execute(f"PRAGMA table_info({table})").fetchall()
            columns = ["'wtb-nobody'" if c[1] == "thread_id" else c[1] for c in info]
            connection.execute(f"INSERT INTO {table} SELECT {', '.join(columns)} FROM {table}")
        connection.commit()
    note(planted=[name, "wtb-nobody"])


def repair(bench: TestBench) -> None:
    report = bench.check_integrity(repair=True, deep=True)
    assert report.healthy, report  # what could not be repaired is not acknowledged


def repaired(bench: TestBench) -> Any:
    where = bench.session.project.locations.checkpoints
    with closing(sqlite3.connect(where)) as connection:
        count = "SELECT count(*) FROM {} WHERE thread_id = 'wtb-nobody'"
        orphans = [
            connection.execute(count.format(table)).fetchone()[0]
            for table in ("checkpoints", "writes")
        ]
    return [noted_execution(bench), orphans]


# Garbage collection.


def garbage(bench: TestBench) -> None:
    """Contents and a commit that nothing names, and a half-written file, all of them old."""
    ended_run(bench)
    tracker = bench.session.tracker
    made = tracker.store_texts([(f"{n}.txt", f"of no use {n}".encode()) for n in range(4)])
    for memento in made:
        os.utime(blob_path(memento.blob_id), (0, 0))
    half = BLOBS / "tmp/of-a-dead-process"
    half.write_text("half")
    os.utime(half, (0, 0))
    commit_id = commit_id_of(None, made, ())
    unused = FileCommit(
        commit_id=commit_id,
        parent_id=None,
        execution_id=None,
        changed=made,
        removed=(),
        created_at=datetime(2020, 1, 1, tzinfo=UTC),
    )
    with bench.session.open_uow(write=True) as uow:
        uow.file_commits.add(unused)
        uow.commit()
    note(planted=[*(m.blob_id for m in made), commit_id])


def collect(bench: TestBench) -> None:
    bench.collect_garbage()


def collected(bench: TestBench) -> Any:
    planted = [blob_path(name).exists() for name in noted()["planted"]]
    half = (BLOBS / "tmp/of-a-dead-process").exists()
    commits = ledger("SELECT count(*) FROM file_commits")
    return [noted_execution(bench), planted, half, commits]


# A first super-step of many files.


def nothing(bench: TestBench) -> None:
    """Only makes the stores."""
    bench.session.open_uow()


def write_many(bench: TestBench) -> None:
    note(id=bench.run(initial_state={"log": ["many"]}, breakpoints=["b"]).execution_id)


OPERATIONS = {
    "many": Operation(nothing, write_many, noted_execution),
    "commit": Operation(held_before_c, run_to_the_end, run_and_bodies),
    "fork": Operation(ended_run, branch_and_fork, branch_and_parent, whole_or_none),
    "update": Operation(held_before_d, roll_back_to_a, rolled_back, old_or_new),
    "outbox": Operation(forgotten_claims, process, claims),
    "repair": Operation(damaged, repair, repaired),
    "gc": Operation(garbage, collect, collected),
}
