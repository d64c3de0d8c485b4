"""The audit finds every damage, cries wolf at none, and repairs what can be repaired."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from controlled import START, STRAIGHT, Place

from tests.integration.test_events import CASES, MATRIX, bench_in
from wtb_prefect import TestBench
from wtb_prefect.application.integrity.check_integrity import check_integrity
from wtb_prefect.application.integrity.repair import repair_all
from wtb_prefect.bootstrap.audit import open_audit
from wtb_prefect.domain.integrity import IntegrityReport, IssueKind, RepairAction, Severity
from wtb_prefect.domain.project import ProjectLocations

LEDGER = (
    *("workflows", "variants", "batch_tests", "cases", "cells", "executions"),
    *("execution_controls", "node_boundaries", "checkpoint_files", "evaluation_results"),
    *("file_commits", "file_mementos", "outbox_events"),
)
"""Tables of which every single row is missed. A kept node result is a cache: losing it costs time.
Of the audit log the beginnings and ends are missed."""


ONLY_CLAIM = """NOT EXISTS (SELECT 1 FROM outbox_events other
    WHERE other.type = 'FILE_COMMIT_VERIFY' AND outbox_events.type = other.type
    AND json_extract(other.payload, '$.subject') = json_extract(outbox_events.payload, '$.subject')
    AND other.sequence <> outbox_events.sequence)"""
"""Executions that write the same files claim the same commit, each for itself."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A project with a bit of everything in it."""
    place = Place(tmp_path_factory.mktemp("lived-in"))
    project = place.project()

    @project.evaluator
    def steps(state: dict[str, Any]) -> int:
        return len(state["log"])

    with TestBench(project) as bench:
        cases = [{"id": name, "state": START} for name in "qr"]
        bench.batch({"d": "*"}, cases, runner="inline", batch_id="one")
        bench.batch({"d": "*"}, cases[:1], runner="inline", self_check=1)
        done = bench.run(initial_state=START).execution_id
        bench.rollback(done, node="b")
        bench.resume(done)
        bench.run(initial_state=START, breakpoints=["sub|q"])
        at = bench.history(done)[3].checkpoint_id
        bench.branch(done, at, variants={"d": "loud"})
        bench.rollback(done, node="a")
        bench.step(done)
    return place


class Copy:
    """A copy of a project's stores, to be damaged and audited."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(place.folder, folder, dirs_exist_ok=True)
        found = place.project().locations
        self.where = ProjectLocations(
            database_url=f"sqlite:///{folder / 'w.db'}",
            checkpoints=folder / found.checkpoints.relative_to(place.folder),
            output_dir=folder / "out",
            workspace=None,
        )

    def write(self, statement: str, *values: Any, store: str = "ledger") -> None:
        path = self.folder / "w.db" if store == "ledger" else self.where.checkpoints
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement, values)
            connection.commit()

    def rows(self, table: str, store: str = "ledger", where: str = "1") -> list[str]:
        """Conditions that single out each row, by the primary key."""
        path = self.folder / "w.db" if store == "ledger" else self.where.checkpoints
        with closing(sqlite3.connect(path)) as connection:
            info = connection.execute(f"PRAGMA table_info({table})").fetchall()
            keys = [column[1] for column in info if column[5]]
            quoted = " || ' AND ' || ".join(f"'{key} = ' || quote({key})" for key in keys)
            query = f"SELECT {quoted} FROM {table} WHERE {where}"
            return sorted(row[0] for row in connection.execute(query))

    def audit(self, *, deep: bool = False, repair: bool = False) -> IntegrityReport:
        with open_audit(self.where) as stores:
            return check_integrity(stores, deep=deep, repair=repair)


@pytest.fixture
def copy(lived_in: Place, tmp_path: Path) -> Copy:
    return Copy(lived_in, tmp_path / "copy")


def critical(report: IntegrityReport) -> list[str]:
    return [str(i) for i in report.issues if i.severity is not Severity.INFO]


def test_what_ran_undisturbed_is_healthy(lived_in: Place, tmp_path: Path) -> None:
    with lived_in.bench() as bench:
        report = bench.check_integrity(deep=True)
        assert report.issues == ()
        assert report.healthy
        assert report.checked["executions"] >= 15
    with bench_in(tmp_path / "events") as bench:
        bench.batch(MATRIX, CASES, runner="inline")
        bench.batch(MATRIX, [{"id": "new", "state": {"log": ["in"]}}], runner="inline")
        assert bench.check_integrity(deep=True).issues == ()
    (tmp_path / "asks").mkdir()
    asking = Place(tmp_path / "asks")
    with asking.bench("asks") as bench:
        held = bench.run(initial_state=START).execution_id
        assert bench.check_integrity(deep=True).issues == ()
        bench.resume(held, value="yes")
        assert bench.check_integrity(deep=True).issues == ()


@pytest.mark.parametrize("table", LEDGER)
def test_every_row_of_the_ledger_is_missed(lived_in: Place, tmp_path: Path, table: str) -> None:
    """Up to 12 rows of each table, spread over all of it, are deleted one at a time."""
    where = "1" if table != "outbox_events" else ONLY_CLAIM
    rows = Copy(lived_in, tmp_path / "whole").rows(table, where=where)
    assert rows
    for number, row in enumerate(rows[:: len(rows) // 12 + 1]):
        copy = Copy(lived_in, tmp_path / str(number))
        copy.write(f"DELETE FROM {table} WHERE {row}")
        assert not copy.audit().healthy, f"{table} {row}: nothing was found"


def test_beginnings_and_ends_in_the_audit_log_are_missed(lived_in: Place, tmp_path: Path) -> None:
    ends = "action IN ('execution.forked', 'batch.started')"
    rows = Copy(lived_in, tmp_path / "whole").rows("audit_log", where=ends)
    for number, row in enumerate(rows[::4]):
        copy = Copy(lived_in, tmp_path / str(number))
        copy.write(f"DELETE FROM audit_log WHERE {row}")
        assert "the audit log does not say" in str(copy.audit())


def test_every_checkpoint_is_missed(lived_in: Place, tmp_path: Path) -> None:
    where = "checkpoint_ns = '' AND thread_id LIKE 'wtb-%'"
    rows = Copy(lived_in, tmp_path / "whole").rows("checkpoints", "checkpoints", where)
    for number, row in enumerate(rows[::9]):
        copy = Copy(lived_in, tmp_path / str(number))
        copy.write(f"DELETE FROM checkpoints WHERE {row}", store="checkpoints")
        report = copy.audit()
        assert IssueKind.MISSING_CHECKPOINT in {issue.kind for issue in report.issues}
        assert not report.healthy


def test_every_damage_of_a_content_is_found(copy: Copy) -> None:
    """Deleted, truncated and emptied ones by looking, flipped and swapped ones by reading."""
    blobs = sorted((copy.folder / "out/blobs/objects").glob("*/*"))
    assert len(blobs) > 5
    blobs = [blob for blob in blobs if blob.read_bytes()]
    shutil.rmtree(copy.folder / "out/workspaces")  # no copies
    for number, blob in enumerate(blobs):
        data = blob.read_bytes()
        blob.chmod(0o644)
        flipped = bytes([data[0] ^ 1]) + data[1:]
        swapped = blobs[number - 1].read_bytes()
        for damaged, deep in (
            (None, False),
            (data[:-1], False),
            (b"", False),
            (flipped, True),
            (swapped, len(swapped) == len(data)),
        ):
            if damaged is None:
                blob.unlink()
            else:
                blob.write_bytes(damaged)
            report = copy.audit(deep=deep)
            name = blob.parent.name + blob.name
            (found,) = [issue for issue in report.issues if issue.subject == name]
            assert not report.healthy
            assert found.action is RepairAction.MANUAL
            assert name in str(report)
        blob.write_bytes(data)
    assert copy.audit(deep=True).healthy


def test_a_lost_content_is_restored_from_a_copy(copy: Copy) -> None:
    """Of the workspace of a paused execution; twice is once."""
    workspace = next((copy.folder / "out/workspaces").glob("*/run-*"))
    blobs = {blob.read_bytes(): blob for blob in (copy.folder / "out/blobs/objects").glob("*/*")}
    file = next(path for path in workspace.iterdir() if path.read_bytes() in blobs)
    blob, data = blobs[file.read_bytes()], file.read_bytes()
    for damaged in (None, b"x", bytes([data[0] ^ 1]) + data[1:]):
        blob.chmod(0o644)
        blob.unlink()
        if damaged is not None:
            blob.write_bytes(damaged)
        (found,) = copy.audit(deep=True).issues
        assert found.action is RepairAction.RESTORE_COPY
        report = copy.audit(deep=True, repair=True)
        assert report.healthy
        assert report.issues[0].repaired
        assert blob.read_bytes() == data
        assert copy.audit(deep=True, repair=True).issues == ()


def test_what_nothing_names_takes_up_space_until_repair(copy: Copy) -> None:
    """A thread of no execution, writes of no checkpoint, and what a crash left ahead."""
    with closing(sqlite3.connect(copy.where.checkpoints)) as connection:
        (thread,) = connection.execute(
            "SELECT thread_id FROM checkpoints GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
        ).fetchone()
        names = ("checkpoints", "writes")
        columns = {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for table in names
        }
        for column, value in (
            ("thread_id", "'wtb-nobody'"),
            ("checkpoint_id", "'9' || checkpoint_id"),
        ):
            for table in names:
                copied = ", ".join(value if c == column else c for c in columns[table])
                query = f"INSERT INTO {table} SELECT {copied} FROM {table} WHERE thread_id = ?"
                connection.execute(query, (thread,))
        connection.commit()
    report = copy.audit()
    assert report.healthy
    kinds = {issue.kind for issue in report.issues}
    assert kinds == {IssueKind.ORPHAN_CHECKPOINT}
    assert {issue.action for issue in report.issues} == {RepairAction.DELETE_ORPHAN}
    assert all(issue.repaired for issue in copy.audit(repair=True).issues)
    assert copy.audit(deep=True).issues == ()


def test_half_a_deleted_thread_is_found_and_deleted(copy: Copy) -> None:
    with closing(sqlite3.connect(copy.where.checkpoints)) as connection:
        connection.execute(
            "INSERT INTO writes SELECT 'wtb-half', checkpoint_ns, checkpoint_id, task_id, idx, "
            "channel, type, value, task_path FROM writes LIMIT 1"
        )
        connection.commit()
    found = {issue.kind for issue in copy.audit().issues}
    assert found == {IssueKind.ORPHAN_CHECKPOINT, IssueKind.ORPHAN_WRITES}
    assert all(issue.repaired for issue in copy.audit(repair=True).issues)
    assert copy.audit().issues == ()


def test_what_a_dead_process_left_running_is_marked_and_goes_on(place: Place) -> None:
    place.hold("c")
    child = place.elsewhere(f"bench.run(initial_state={START!r})")
    bodies = place.folder / "bodies.txt"
    while "c" not in bodies.read_text().split():
        assert child.poll() is None, child.communicate()
    with place.bench() as bench:
        assert bench.check_integrity().issues == ()  # it lives
        child.kill()
        child.communicate()
        (found,) = bench.check_integrity().issues
        assert (found.kind, found.action) == (IssueKind.DEAD_OWNER, RepairAction.MARK_CRASHED)
        report = bench.check_integrity(repair=True)
        assert report.healthy
        assert bench.execution(found.subject).status == "crashed"
        assert bench.check_integrity(deep=True).issues == ()
        place.let_go()
        assert bench.resume(found.subject).state["log"] == STRAIGHT


def test_what_somebody_goes_on_with_meanwhile_is_left_alone(place: Place) -> None:
    """Repair acts on what was seen a moment ago: a run resumed since is alive, its owner too."""
    place.hold("c")
    bodies = place.folder / "bodies.txt"
    child = place.elsewhere(f"bench.run(initial_state={START!r})")
    while "c" not in bodies.read_text().split():
        assert child.poll() is None, child.communicate()
    child.kill()
    child.communicate()
    with place.bench() as bench:
        issues = list(bench.check_integrity().issues)
        (run,) = (issue.subject for issue in issues)
        other = place.elsewhere(f"assert bench.resume({run!r}).state['log'] == {STRAIGHT!r}")
        while bodies.read_text().split().count("c") < 2:
            assert other.poll() is None, other.communicate()
        ahead = replace(
            issues[0],
            kind=IssueKind.ORPHAN_CHECKPOINT,
            action=RepairAction.DELETE_ORPHAN,
            about={"execution_id": run},
        )
        with open_audit(place.project().locations) as stores:
            left = repair_all([*issues, ahead], stores)
        assert [issue.repaired for issue in left] == [False, False]
        assert bench.check_integrity().issues == ()
        place.let_go()
        _, err = other.communicate(timeout=60)
        assert other.returncode == 0, err
        assert bench.execution(run).status == "completed"


def test_a_failed_claim_is_retried_by_repair(copy: Copy) -> None:
    copy.write(
        "UPDATE outbox_events SET status = 'FAILED', attempts = 5, last_error = 'gone' "
        "WHERE rowid = (SELECT max(rowid) FROM outbox_events)"
    )
    (found,) = copy.audit(repair=True).issues
    assert (found.kind, found.detail, found.repaired) == (IssueKind.OUTBOX_STUCK, "gone", True)
    assert copy.audit().issues == ()


def test_a_cell_whose_answer_is_gone_is_asked_again(place: Place) -> None:
    with place.bench() as bench:
        cases = [{"id": "q", "state": START}]
        first = bench.batch({"d": "*"}, cases, runner="inline", batch_id="b")
        lost = str(first.cells[0].execution_id)
    with closing(sqlite3.connect(place.folder / "w.db")) as connection:
        connection.execute(
            "UPDATE cells SET execution_id = 'nobody' WHERE execution_id = ?", (lost,)
        )
        connection.commit()
    with place.bench() as bench:
        (found,) = bench.check_integrity(repair=True).issues
        assert (found.kind, found.subject) == (IssueKind.DANGLING_REFERENCE, "nobody")
        assert found.repaired
        again = bench.batch({"d": "*"}, cases, runner="inline", batch_id="b")
        assert {cell.status for cell in again.cells} == {"completed"}
        assert again.node_executions == 0
        assert bench.check_integrity(deep=True).issues == ()
        # It is asked only for as long as that answer is gone.
        with open_audit(place.project().locations) as stores:
            assert [issue.repaired for issue in repair_all([found], stores)] == [False]
        assert bench.check_integrity().issues == ()


def test_the_report_says_what_to_do(copy: Copy) -> None:
    copy.write("DELETE FROM cases WHERE rowid = (SELECT min(rowid) FROM cases)")
    report = copy.audit()
    assert report.by_severity["critical"] == len(critical(report)) == 1
    assert str(report).startswith("not healthy: 2 batches")
    assert "critical missing_row one/q: the batch was asked with this case (manual)" in str(report)
    repaired = copy.audit(repair=True)
    assert (repaired.healthy, repaired.issues) == (False, report.issues)
