"""Workspaces that are overlay mounts: exact, isolated, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from wtb_prefect import Case, TestBench, WorkflowProject, current_workspace
from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.errors import FileTrackingError, InvalidInputError, NotFoundError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces, overlays

TREE = {
    "same": b"same",
    "edited": b"before",
    "deleted": b"1",
    "renamed": b"r" * 2000,
    "script": b"#!",
    "folder/a": b"a",
    "folder/deep/b": b"b",
    "gone/c": b"c",
}


@pytest.fixture
def can_mount(tmp_path: Path) -> Iterator[None]:
    if (reason := overlays.why_no_overlays(tmp_path)) is not None:
        pytest.skip(reason)
    yield
    for place in mounts_below(tmp_path):
        overlays.unmount(place)


def mounts_below(folder: Path) -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return [place for place in places if place.is_relative_to(folder)]


@pytest.fixture
def tracker(tmp_path: Path) -> LocalFileTracker:
    return LocalFileTracker(LocalBlobStore(tmp_path / "store"))


@pytest.fixture
def start(tracker: LocalFileTracker, tmp_path: Path) -> dict[str, FileMemento]:
    """What a folder with a link and modes holds."""
    for name, data in TREE.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    (tmp_path / "source/link").symlink_to("folder/a")
    (tmp_path / "source/edited").chmod(0o640)
    return dict(tracker.snapshot(tmp_path / "source", FileSnapshot()).files)


@pytest.fixture
def workspaces(tmp_path: Path, tracker: LocalFileTracker, can_mount: None) -> FolderWorkspaces:
    return FolderWorkspaces(tmp_path / "w", tracker, overlay=True)


def work_on(folder: Path) -> None:
    (folder / "edited").write_bytes(b"after!")  # as long as before
    (folder / "deleted").unlink()
    (folder / "renamed").rename(folder / "moved")
    (folder / "script").chmod(0o755)
    (folder / "folder").rename(folder / "elsewhere")
    (folder / "gone/c").unlink()
    (folder / "gone").rmdir()
    (folder / "gone").write_bytes(b"a file now")
    (folder / "link").unlink()
    (folder / "link").symlink_to("/no/such/place")
    (folder / "new/deep").mkdir(parents=True)
    (folder / "new/deep/file").write_bytes(b"new")


def starts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "w-overlays/starts").glob("*"))


def assert_no_trace(tmp_path: Path) -> None:
    assert not mounts_below(tmp_path)
    for name in ("starts", "layers", "removed"):
        assert not list((tmp_path / "w-overlays" / name).iterdir())
    assert not list((tmp_path / "w").glob("*"))


def test_a_commit_is_exact_and_the_start_stays_as_it_was(
    workspaces: FolderWorkspaces,
    tracker: LocalFileTracker,
    start: dict[str, FileMemento],
    tmp_path: Path,
) -> None:
    overlay = workspaces.open("e-1", "a=b/case", start)
    plain = FolderWorkspaces(tmp_path / "plain", tracker).open("e-1", "a=b/case", start)
    for workspace in (overlay, plain):
        work_on(workspace.path())
    by_overlay, by_copy = overlay.snapshot(), plain.snapshot()
    assert by_overlay is not None
    assert by_copy is not None
    assert by_overlay.files == by_copy.files
    assert tracker.snapshot(overlay.path(), FileSnapshot()).files == by_copy.files
    assert overlay.strategy == "overlay"
    [shared] = starts(tmp_path)
    assert tracker.snapshot(shared, FileSnapshot()).files == start
    overlay.remove()
    workspaces.sweep()
    assert_no_trace(tmp_path)


def test_untouched_files_are_not_hashed_again(
    workspaces: FolderWorkspaces,
    start: dict[str, FileMemento],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = workspaces.open("e-1", "case", start)
    stored: list[Path] = []
    put_file = LocalBlobStore.put_file

    def put(self: LocalBlobStore, source: Path) -> Any:
        stored.append(source)
        return put_file(self, source)

    folder = workspace.path()
    (folder / "edited").write_bytes(b"2")
    monkeypatch.setattr(LocalBlobStore, "put_file", put)
    workspace.snapshot()
    assert stored == [folder / "edited"]


def test_going_back_and_forth_is_exact(
    workspaces: FolderWorkspaces, tracker: LocalFileTracker, start: dict[str, FileMemento]
) -> None:
    first = workspaces.open("e-1", "case", start)
    folder = first.path()
    work_on(folder)
    later = first.snapshot()
    assert later is not None
    for files in (start, dict(later.files), {}, start):
        put_back = workspaces.open("e-1", "case", files).put_back()
        assert put_back is not None
        assert put_back.files == tracker.snapshot(folder, FileSnapshot()).files == files
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert os.path.ismount(folder)


def test_workspaces_share_a_start_and_nothing_else(
    workspaces: FolderWorkspaces, start: dict[str, FileMemento], tmp_path: Path
) -> None:
    one, two = (workspaces.open(f"e-{n}", "case", dict(start)) for n in (1, 2))
    work_on(one.path())
    assert (two.path() / "edited").read_bytes() == b"before"
    fewer = {path: memento for path, memento in start.items() if path != "deleted"}
    workspaces.open("e-3", "case", fewer).path()
    assert len(starts(tmp_path)) == 2
    one.remove()
    workspaces.open("e-3", "case", fewer).remove()
    workspaces.sweep()
    assert len(starts(tmp_path)) == 1
    assert (two.path() / "renamed").read_bytes() == TREE["renamed"]


def test_starts_that_differ_in_anything_are_not_shared(
    workspaces: FolderWorkspaces, tracker: LocalFileTracker, tmp_path: Path
) -> None:
    first, second = tracker.store_texts([("a", b"b"), ("b", b"a")])
    alike = [
        {"a": first},
        {"a": replace(first, mode=0o600)},
        {"a": replace(first, mode=0o777)},
        {"a": replace(first, mode=0o777, is_symlink=True)},
        {"a": replace(second, path="a")},
        {"b": replace(first, path="b")},
        {"a": first, "b": second},
        {"a": replace(second, path="a"), "b": replace(first, path="b")},
    ]
    for number, files in enumerate(alike):
        folder = workspaces.open(f"e-{number}", "case", files).path()
        assert tracker.snapshot(folder, FileSnapshot()).files == files
    assert len(starts(tmp_path)) == len(alike)


def test_a_start_of_another_process_is_checked_before_it_is_used(
    workspaces: FolderWorkspaces,
    tracker: LocalFileTracker,
    start: dict[str, FileMemento],
    tmp_path: Path,
) -> None:
    workspaces.open("e-1", "case", start).path()
    [shared] = starts(tmp_path)
    inode = shared.stat().st_ino
    for damage in (False, True):
        if damage:
            (shared / "same").write_bytes(b"SAME")
        other = FolderWorkspaces(tmp_path / "w", tracker, overlay=True)
        folder = other.open(f"e-{2 + damage}", "case", start).path()
        assert tracker.snapshot(folder, FileSnapshot()).files == start
        [shared] = starts(tmp_path)
        assert (shared.stat().st_ino != inode) == damage


def test_a_copy_can_take_the_place_of_a_mount_and_the_other_way_round(
    workspaces: FolderWorkspaces,
    tracker: LocalFileTracker,
    start: dict[str, FileMemento],
    tmp_path: Path,
) -> None:
    plain = FolderWorkspaces(tmp_path / "w", tracker)
    for store, is_mount in ((workspaces, True), (plain, False), (workspaces, True)):
        workspace = store.open("e-1", "case", start)
        work_on(workspace.path())
        assert os.path.ismount(workspace.path()) is is_mount
        taken = workspace.snapshot()
        assert taken is not None
        assert "moved" in taken.files
    plain.open("e-1", "case", start).remove()
    plain.sweep()
    assert_no_trace(tmp_path)


def test_a_failed_mount_leaves_nothing_and_an_earlier_attempt_alone(
    workspaces: FolderWorkspaces,
    start: dict[str, FileMemento],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work_on(workspaces.open("e-1", "case", start).path())
    layers = sorted((tmp_path / "w-overlays/layers").glob("*/*"))

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(overlays, "mount_overlay", refuse)
    for name in ("e-1", "e-2"):
        with pytest.raises(FileTrackingError, match=f"cannot mount.*case-{name}.*not permitted"):
            workspaces.open(name, "case", start).path()
    assert sorted((tmp_path / "w-overlays/layers").glob("*/*")) == layers
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["case-e-1"]
    assert (tmp_path / "w/case-e-1/moved").exists()


def test_one_that_somebody_sits_in_is_removed_all_the_same(
    workspaces: FolderWorkspaces, start: dict[str, FileMemento], tmp_path: Path
) -> None:
    workspace = workspaces.open("e-1", "case", start)
    with subprocess.Popen(["sleep", "60"], cwd=workspace.path()) as sitting:
        workspace.remove()
        workspaces.sweep()
        assert_no_trace(tmp_path)
        sitting.kill()


def test_sweeping_takes_no_start_from_whoever_is_about_to_use_it(
    workspaces: FolderWorkspaces, start: dict[str, FileMemento], tmp_path: Path
) -> None:
    done = threading.Event()

    def sweep() -> None:
        while not done.wait(0.001):  # without a pause the others once waited for the lock for 165 s
            workspaces.sweep()

    def make(number: int) -> None:
        for _ in range(15):
            workspace = workspaces.open(f"e-{number}", "case", start)
            assert (workspace.path() / "folder/deep/b").read_bytes() == b"b"
            workspace.remove()

    with ThreadPoolExecutor(4) as pool:
        sweeping = pool.submit(sweep)
        try:
            list(pool.map(make, range(3)))
        finally:
            done.set()
        sweeping.result()
    workspaces.sweep()
    assert_no_trace(tmp_path)


MAKER = """
import sys, time
from pathlib import Path
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces
root = Path(sys.argv[1])
tracker = LocalFileTracker(LocalBlobStore(root / "store"))
workspaces = FolderWorkspaces(root / "w", tracker, overlay=True)
start = {m.path: m for m in tracker.store_texts([("a", b"1")])}
(workspaces.open("orphan", "a=b/case", start).path() / "file").write_text("left")
print("made", flush=True)
time.sleep(60)
"""


def test_the_mount_of_a_killed_process_is_cleaned_up(
    can_mount: None, tracker: LocalFileTracker, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        process.send_signal(signal.SIGKILL)
    left = tmp_path / "w/a=b/case-orphan"
    plain = FolderWorkspaces(tmp_path / "w", tracker)  # whoever comes by
    assert plain.clean_orphans() == []
    assert (left / "file").read_text() == "left"
    assert plain.clean_orphans(grace_seconds=0) == [left]
    assert_no_trace(tmp_path)


class State(TypedDict, total=False):
    fail: bool
    seen: list[str]


def work(state: State) -> dict[str, Any]:
    folder = current_workspace()
    (folder / "made").write_text("1")
    (folder / "data").rename(folder / "moved")
    if state.get("fail"):
        raise ValueError("as asked")
    return {"seen": sorted(path.name for path in folder.iterdir())}


def look(state: State) -> dict[str, Any]:
    return {"seen": [*state["seen"], (current_workspace() / "moved").read_text()]}


def graph() -> Any:
    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_node("look", look)
    builder.add_edge(START, "work")
    builder.add_edge("work", "look")
    builder.add_edge("look", END)
    return builder


def make_project(tmp_path: Path, **options: Any) -> WorkflowProject:
    (tmp_path / "base").mkdir(exist_ok=True)
    (tmp_path / "base/data").write_text("1")
    project = WorkflowProject(
        "overlay",
        graph,
        db_path=tmp_path / "l.db",
        output_dir=tmp_path / "out",
        workspace=tmp_path / "base",
        **options,
    )

    @project.variant("look", "twice")
    def twice(state: State) -> dict[str, Any]:
        return {"seen": [*look(state)["seen"], "twice"]}

    return project


def test_a_batch_with_forks_says_how_its_workspaces_were_made(
    can_mount: None, tmp_path: Path
) -> None:
    cases = [Case(id="good", state={"fail": False}), Case(id="bad", state={"fail": True})]
    with TestBench(make_project(tmp_path, workspace_strategy="overlay")) as bench:
        result = bench.batch(cases=cases, runner="inline", matrix={"look": ["original", "twice"]})
        with bench.session.open_uow() as uow:
            executions = uow.executions.list(batch_id=result.batch_id)
    made = [e.metadata["workspace"] for e in executions if "workspace" in e.metadata]
    assert made
    assert set(made) == {"overlay"}
    [kept] = mounts_below(tmp_path)  # of the case that failed
    assert (kept / "moved").read_text() == "1"
    assert len(list((tmp_path / "out/workspaces-overlays/starts").iterdir())) == 1


def test_a_system_that_cannot_mount_refuses_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(overlays, "mount_overlay", refuse)
    with (
        TestBench(make_project(tmp_path, workspace_strategy="overlay")) as bench,
        pytest.raises(InvalidInputError, match=r"'overlay' cannot be had here.*only root"),
    ):
        bench.batch(cases=[Case(id="c", state={})], runner="inline")
    assert not (tmp_path / "out/workspaces").exists()


def doctor_says(folder: Path, *before: str) -> dict[str, str]:
    done = subprocess.run(
        [*before, sys.executable, "-m", "wtb_prefect.cli", "doctor", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        pytest.skip(f"{' '.join(before)}: {done.stderr}")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    return dict(checks["overlay workspaces"])


def test_the_doctor_says_that_they_can_be_mounted(can_mount: None, tmp_path: Path) -> None:
    assert doctor_says(tmp_path)["value"] == "can be mounted"
    assert not list(tmp_path.iterdir())


def test_the_doctor_says_why_not_where_the_privilege_is_missing(tmp_path: Path) -> None:
    drop = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    found = doctor_says(tmp_path, *drop)
    assert found["value"] == "cannot be mounted"
    assert "only root may mount" in found["note"]
    assert not list(tmp_path.iterdir())


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(NotFoundError, match=r"workspace_strategy.*copy, overlay"):
        WorkflowProject("p", graph, workspace_strategy="link")  # type: ignore[arg-type]
