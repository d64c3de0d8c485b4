"""What nothing names goes, what anything names stays, whoever writes meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from graphs import CALLS, State
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from line_project import line

from wtb_prefect import CellFilter, TestBench, WorkflowProject, current_workspace
from wtb_prefect.application.collect_garbage import (
    GarbageReport,
    GarbageStores,
    collect_garbage,
    ids_in_case,
)
from wtb_prefect.application.delete_batch import delete_batch
from wtb_prefect.application.load_case import load_cases
from wtb_prefect.bootstrap.garbage import open_garbage
from wtb_prefect.bootstrap.stores import open_stores
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.domain.outbox import OutboxEventType
from wtb_prefect.errors import InvalidInputError, LedgerError
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore
from wtb_prefect.infrastructure.file_tracking.fsspec_blob_store import FsspecBlobStore
from wtb_prefect.infrastructure.processes import is_alive, this_process
from wtb_prefect.infrastructure.system_clock import SystemClock

CASES = [
    {"id": name, "state": {"log": [name]}, "files": {"given.txt": f"given to {name}"}}
    for name in ("c1", "c2")
]


class LaterClock(SystemClock):
    """A day and an hour later: everything on disk is older than the grace period."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=25)


def writing(name: str) -> Callable[..., dict[str, list[str]]]:
    """A node with a file for itself, one that it replaces and one that it removes again."""

    def body(state: State, *, store: BaseStore) -> dict[str, list[str]]:
        CALLS.add(name)
        folder = current_workspace()
        (folder / f"{name}.txt").write_text(f"{name} of {state['log']}")
        (folder / "replaced.txt").write_text(f"replaced by {name} of {state['log']}")
        (folder / "given.txt").unlink(missing_ok=True)
        store.put(("notes",), name, {"log": list(state["log"])})
        return {"log": [name]}

    return body


def writing_alone(name: str) -> Callable[..., dict[str, list[str]]]:
    """The same without the store: its result can be kept."""

    def body(state: State) -> dict[str, list[str]]:
        CALLS.add(name)
        (current_workspace() / f"{name}.txt").write_text(f"{name} of {state['log']}")
        return {"log": [name]}

    return body


def project(folder: Path) -> WorkflowProject:
    base = folder / "base"
    base.mkdir(exist_ok=True)
    (base / "corpus.txt").write_text("what every execution starts with")
    (base / "link").symlink_to("corpus.txt") if not (base / "link").is_symlink() else None
    graph = line("a", "b", "c", a=writing("a"), b=writing_alone("b"), c=writing("c"))
    made = WorkflowProject(
        "line",
        graph.compile(store=InMemoryStore()),
        db_path=folder / "w.db",
        output_dir=folder / "out",
        workspace=base,
    )
    made.variant("c", "x", writing("cx"))
    made.cached("b", reads=["log"])
    return made


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TestBench]:
    with TestBench(project(tmp_path)) as made:
        yield made


def run(bench: TestBench, batch_id: str | None = None, **options: object) -> str:
    matrix = {"c": "*"}
    result = bench.batch(matrix, CASES, runner="inline", batch_id=batch_id, **options)  # type: ignore[arg-type]
    assert {cell.status for cell in result.cells} == {"completed"}
    return result.batch_id


def collect(bench: TestBench, *, dry_run: bool = False, later: bool = True) -> GarbageReport:
    with open_garbage(bench.project.locations) as stores:
        clock = LaterClock() if later else SystemClock()
        return collect_garbage(replace(stores, clock=clock), dry_run=dry_run)


def delete(bench: TestBench, batch_id: str) -> None:
    with open_stores(bench.project.locations) as stores:
        delete_batch(batch_id, this_process(), is_alive, stores)


def objects(bench: TestBench) -> dict[str, bytes]:
    found = (bench.project.locations.output_dir / "blobs" / "objects").glob("??/*")
    return {path.parent.name + path.name: path.read_bytes() for path in found}


def check_all_is_readable(bench: TestBench) -> int:
    """Reads everything that anything in the ledger can lead to; answers how much there is."""
    session, read = bench.session, set[BlobId]()
    with session.open_uow() as uow:
        for execution in uow.executions.list():
            commits = [execution.commit_id]
            commits += [execution.lineage.commit_id] if execution.lineage else []
            links = uow.checkpoint_files.list(execution.execution_id)
            commits += [link.commit_id for link in links]
            read |= {link.store_id for link in links if link.store_id is not None}
            for commit in commits:
                if commit is not None:
                    read |= {m.blob_id for m in uow.file_commits.tree(commit).values()}
        read |= uow.node_results.blobs()
    for batch in bench.session.open_uow().__enter__().batch_tests.list():
        for case in load_cases(session, batch.batch_id):
            read |= {m.blob_id for m in case.files.values()}
    for blob in read:
        session.tracker.contents(blob)
    return len(read)


def test_nothing_that_is_named_goes(bench: TestBench) -> None:
    """Files of cases, base workspace, steps, kept results, stores: all readable as before."""
    run(bench, record=["a"])
    before, count = objects(bench), check_all_is_readable(bench)
    report = collect(bench)
    assert (report.commits, report.blobs, report.leftovers) == (0, 0, 0)
    assert objects(bench) == before
    assert report.named == len(before)
    assert report.named_bytes == sum(map(len, before.values()))
    assert check_all_is_readable(bench) == count > 10


def test_what_only_a_deleted_batch_had_goes(bench: TestBench) -> None:
    """Said first and not done; then done, and the other batch has everything it had."""
    first, second = run(bench, "first"), run(bench, "second")
    others = set(objects(bench))
    (bench.project.locations.workspace or Path()).joinpath("more.txt").write_text("more")
    third = run(bench, "third")
    delete(bench, third)
    before = objects(bench)
    said = collect(bench, dry_run=True)
    assert objects(bench) == before
    assert said.blobs > 1
    assert said.commits > 3
    done = collect(bench)
    assert replace(done, dry_run=True) == said
    assert set(objects(bench)) == others
    assert hashlib.sha256(b"more").hexdigest() in set(before) - others
    assert check_all_is_readable(bench) > 10
    with bench.session.open_uow() as uow:
        events = uow.outbox.list()
        known = uow.file_commits.parents()
    kind = OutboxEventType.FILE_COMMIT_VERIFY
    assert {event.payload["subject"] for event in events if event.type is kind} <= set(known)
    delete(bench, first)
    collect(bench)
    assert check_all_is_readable(bench) > 10
    delete(bench, second)
    assert collect(bench).commits > 0
    left = {
        hashlib.sha256(f"b of {log}".encode()).hexdigest() for log in (["c1", "a"], ["c2", "a"])
    }
    assert set(objects(bench)) == left  # results of `b`, to be used again
    run(bench, "first")
    assert check_all_is_readable(bench) > 10


def test_files_of_cases_that_did_not_run_yet_stay(bench: TestBench) -> None:
    bench.batch(None, CASES, runner="inline", only=CellFilter(limit=1))
    assert collect(bench).commits == 0
    later = bench.batch(None, CASES, runner="inline")
    assert {cell.status for cell in later.cells} == {"completed"}
    assert check_all_is_readable(bench) > 5


def test_what_is_younger_than_the_grace_period_stays(bench: TestBench) -> None:
    delete(bench, run(bench))
    before = objects(bench)
    report = collect(bench, later=False)
    assert (report.commits, report.blobs) == (0, 0)
    assert objects(bench) == before
    assert collect(bench).blobs == len(before) - 2


def test_leftovers_of_writers_that_were_killed_go(bench: TestBench) -> None:
    run(bench)
    left = bench.project.locations.output_dir / "blobs/objects/tmp/half-written"
    left.write_bytes(b"12345")
    assert collect(bench, later=False).leftovers == 0
    said = collect(bench, dry_run=True)
    assert (said.leftovers, said.leftover_bytes) == (1, 5)
    assert left.exists()
    assert collect(bench).leftovers == 1
    assert not left.exists()


def test_ledgers_that_share_the_blobs_are_all_asked(tmp_path: Path, bench: TestBench) -> None:
    """Two projects with ledgers of their own and one output folder; one that is not there."""
    other = WorkflowProject(
        "other",
        line("a", a=writing_alone("theirs")),
        db_path=tmp_path / "other.db",
        output_dir=tmp_path / "out",
    )
    with TestBench(other) as theirs:
        theirs.batch(None, CASES, runner="inline")
        delete(bench, run(bench))
        assert collect(bench).blobs > 0
        assert check_all_is_readable(theirs) >= 2
    (tmp_path / "other.db").rename(tmp_path / "moved.db")
    before = objects(bench)
    with pytest.raises(LedgerError, match=r"other\.db, which uses the same blobs, is not there"):
        collect(bench)
    assert objects(bench) == before


def test_cases_that_cannot_be_searched_end_it(bench: TestBench) -> None:
    batch = run(bench)
    with bench.session.open_uow(write=True) as uow:
        case = uow.cases.list(batch)[0]
        assert ids_in_case(case)
        uow.cases.save_many([replace(case, encoding="json")])
        uow.commit()
    with pytest.raises(LedgerError, match="encoded as 'json'"):
        collect(bench)
    with open_garbage(bench.project.locations) as stores, pytest.raises(InvalidInputError):
        collect_garbage(stores, grace_hours=-1)


def test_every_column_that_may_name_contents_is_known() -> None:
    """A new one has to be told to `collect_garbage`, or what it names is removed."""
    words = ("commit", "blob", "store", "memento", "payload", "changed", "file")
    found = {
        f"{table.name}.{column.name}"
        for table in tables.metadata.tables.values()
        for column in table.columns
        if any(word in column.name for word in words)
    }
    assert found == {
        "cases.payload",
        "checkpoint_files.commit_id",
        "checkpoint_files.store_id",
        "execution_controls.payload",  # the state of a run at its start: values, no files
        "executions.commit_id",
        "executions.parent_commit_id",
        "file_commits.commit_id",
        "file_mementos.blob_id",
        "file_mementos.commit_id",
        "node_results.changed",
        "node_results.payload",  # what a node returned: values, no files
        "outbox_events.payload",  # claims to verify: they go with what they claim
    }


WRITER = """
import random, sys, time
from dataclasses import replace
from pathlib import Path
from tests.contracts import ledger_rows as make
from wtb_prefect.bootstrap.ledger import open_ledger
from wtb_prefect.domain.file_processing import FileMemento
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore
from wtb_prefect.infrastructure.file_tracking.fsspec_blob_store import FsspecBlobStore

name, url, root, grace, seconds = sys.argv[1:]
store = FsspecBlobStore(root) if "://" in root else LocalBlobStore(Path(root))
rng, mine = random.Random(name), []
end, late, lost, number = time.monotonic() + float(seconds), 0, 0, 0
with open_ledger(url) as open_uow:
    with open_uow(write=True) as uow:
        uow.workflows.save(make.workflow())
        uow.commit()
    while time.monotonic() < end:
        number += 1
        began = time.monotonic()
        texts = [b"content %d" % rng.randrange(2000) for _ in range(4)]
        files = [FileMemento(path=f"{n}", blob_id=store.put_bytes(t), size=len(t))
                 for n, t in enumerate(texts)]
        store.flush()
        execution_id = f"{name}-{number}"
        commit = replace(make.commit(*files), execution_id=execution_id)
        with open_uow(write=True) as uow:
            uow.file_commits.add(commit)
            execution = make.execution(execution_id, batch_id=None)
            uow.executions.add(replace(execution, lineage=None, commit_id=commit.commit_id))
            mine.append((execution_id, files))
            for old, _ in mine[:-5]:
                uow.executions.delete(old)
            if time.monotonic() - began > float(grace) / 2:
                late += 1  # a busy machine: the promise does not hold for it
                mine.pop()
                continue
            lost += sum(not store.exists(m.blob_id) for _, had in mine[:-1] for m in had)
            uow.commit()
        mine = mine[-5:]
print(number, late, lost)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "fsspec"])
def test_nothing_that_is_being_committed_goes(bench: TestBench, tmp_path: Path, kind: str) -> None:
    """Two processes commit the same few contents again and again, and forget them; a third
    collects all the time with a grace period of half a second."""
    locations, grace, seconds = bench.project.locations, 0.5, 12.0
    root: str | Path = tmp_path / "shared"
    blobs: BlobStore = LocalBlobStore(tmp_path / "shared")
    if kind == "fsspec":
        root = f"file://{root}"
        blobs = FsspecBlobStore(str(root))
    bench.plan(None, CASES)  # makes the ledger
    arguments = [locations.database_url, str(root), str(grace), str(seconds)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name, *arguments],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    removed = rounds = 0
    missing: set[str] = set()
    with open_garbage(locations) as found:
        stores = replace(found, blobs=blobs)
        while any(writer.poll() is None for writer in writers):
            removed += collect_garbage(stores, grace / 3600).blobs
            rounds += 1
            missing |= _missing(stores)
        read = _read_all(stores)
    counts = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    commits, late, lost = (sum(int(count[n]) for count in counts) for n in range(3))
    print(f"{commits} commits ({late} too late), {rounds} rounds, {removed} blobs removed")
    assert commits - late > 100
    assert removed > 100
    assert read > 0
    assert (lost, missing) == (0, set())


def _read_all(stores: GarbageStores) -> int:
    """Reads what commits of executions name, checked against the hashes."""
    (open_uow,) = stores.ledgers
    with open_uow() as uow:
        named = uow.file_commits.contents(sorted(uow.file_commits.in_use()))
    return len([stores.blobs.read(blob) for blob in named])


def _missing(stores: GarbageStores) -> set[str]:
    """What commits of executions name and the store does not have."""
    (open_uow,) = stores.ledgers
    with open_uow() as uow:
        named = uow.file_commits.contents(sorted(uow.file_commits.in_use()))
        return {blob for blob in named if not stores.blobs.exists(blob)}


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.integration import test_collect_garbage as here
from wtb_prefect import TestBench
from wtb_prefect.application import collect_garbage
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

point, real = sys.argv[2], LocalBlobStore.remove
if point == "before commits":
    collect_garbage._remove_commits = die
elif point == "locked":
    os.unlink = die
else:
    left = [int(point)]
    def remove(store, *args):
        left[0] -= 1
        return real(store, *args) if left[0] >= 0 else die()
    LocalBlobStore.remove = remove
here.collect(TestBench(here.project(Path(sys.argv[1]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before commits", "0", "3", "locked"])
def test_killed_anywhere_it_is_finished_by_the_next_one(
    tmp_path: Path, bench: TestBench, point: str
) -> None:
    """Whatever the moment, what is named is whole, and writers are not held up."""
    run(bench, "stays")
    other = [{**case, "state": {"log": [f"other {case['id']}"]}} for case in CASES]
    gone = bench.batch({"c": "*"}, other, runner="inline", batch_id="gone", use_cache=False)
    delete(bench, gone.batch_id)
    wanted = collect(bench, dry_run=True)
    assert wanted.blobs > 5
    folders = [Path(__file__).parents[2], Path(__file__).parent]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, point],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert check_all_is_readable(bench) > 10
    began = time.monotonic()
    run(bench, "another")
    assert time.monotonic() - began < 20
    finished = collect(bench)
    assert finished.blobs == wanted.blobs - (int(point) if point.isdigit() else 0)
    assert collect(bench).blobs == collect(bench).commits == 0
    assert check_all_is_readable(bench) > 10
