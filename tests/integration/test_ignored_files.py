"""Files that match a pattern are neither committed, restored nor removed; all others are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from graphs import State
from line_project import CASES, line

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.domain.file_processing import FileSnapshot
from wtb_prefect.errors import FileTrackingError, InvalidInputError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.file_tracking.ignored_files import ignored_files


def write(folder: Path, *names: str, text: str = "1") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tracker(folder: Path, *patterns: str, base: Path | None = None) -> LocalFileTracker:
    return LocalFileTracker(LocalBlobStore(folder / "store"), ignored_files(patterns, base))


NAMES = ("a.tmp", "a.txt", "deep/b.tmp", "deep/b.txt", "deep/__pycache__/m.pyc", "keep.tmp")


def test_patterns_are_those_of_gitignore(tmp_path: Path) -> None:
    """Anchored ones, folders, what is taken back, and a file beside the base workspace's."""
    root = tmp_path / "w"
    write(root, *NAMES)
    tracked = tracker(tmp_path, "*.tmp", "!keep.tmp").snapshot(root, FileSnapshot()).files
    assert sorted(tracked) == ["a.txt", "deep/b.txt", "keep.tmp"]
    tracked = tracker(tmp_path, "/a.tmp", "deep/").snapshot(root, FileSnapshot()).files
    assert sorted(tracked) == ["a.txt", "keep.tmp"]
    write(root, ".wtbignore", text="# mine\n!a.tmp\n*.txt\n")
    tracked = tracker(tmp_path, "*.tmp", base=root).snapshot(root, FileSnapshot()).files
    assert sorted(tracked) == [".wtbignore", "a.tmp"]


def test_only_caches_of_python_are_ignored_by_default(tmp_path: Path) -> None:
    """What a node may read in the next step has to be there after a fork: a repository, say."""
    write(tmp_path / "w", *NAMES, ".git/HEAD", ".env")
    tracked = tracker(tmp_path).snapshot(tmp_path / "w", FileSnapshot()).files
    assert set(tracked) == {*NAMES, ".git/HEAD", ".env"} - {"deep/__pycache__/m.pyc"}
    taken_back = tracker(tmp_path, "!__pycache__/").snapshot(tmp_path / "w", FileSnapshot()).files
    assert "deep/__pycache__/m.pyc" in taken_back


def test_ignored_files_change_nothing_and_are_left_alone(tmp_path: Path) -> None:
    """Writing one is no change; a change that is made around it leaves it as it is."""
    root, keeper = tmp_path / "w", tracker(tmp_path, "*.tmp", "scratch/")
    write(root, "a.txt", "b.txt")
    time.sleep(0.05)
    first = keeper.snapshot(root, FileSnapshot())
    write(root, "a.tmp", "scratch/x.txt")
    os.mkfifo(root / "pipe.tmp")
    assert keeper.snapshot(root, first) is first
    (new,) = keeper.store_texts([("c.txt", b"3")])
    after = keeper.apply([new], ["a.txt", "b.txt"], root, first)
    assert sorted(after.files) == ["c.txt"]
    assert sorted(p.name for p in root.iterdir()) == ["a.tmp", "c.txt", "pipe.tmp", "scratch"]
    os.mkfifo(root / "pipe")
    with pytest.raises(FileTrackingError, match="neither a file"):
        keeper.snapshot(root, after)


def test_what_is_tracked_stays_tracked(tmp_path: Path) -> None:
    """A case's file, or one committed before there was a pattern, also in an ignored folder."""
    keeper, root = tracker(tmp_path, "*.tmp", "deep/"), tmp_path / "w"
    names = ("given.tmp", "deep/given.txt", "deep/er/given.txt")
    given = {m.path: m for m in keeper.store_texts([(name, b"1") for name in names])}
    restored = keeper.restore(given, root)
    assert keeper.snapshot(root, restored) == restored
    write(root, *names, "deep/new.txt", "new.tmp", text="22")
    changed, removed = keeper.snapshot(root, restored).changes_since(given)
    assert [memento.path for memento in changed] == sorted(names)
    assert not removed
    (root / "given.tmp").unlink()
    assert keeper.snapshot(root, restored).changes_since(given)[1] == ("given.tmp",)


@pytest.mark.parametrize("patterns", ["*.tmp", ["!"], [None], ["\\"]])
def test_what_is_no_pattern_is_refused_before_anything_runs(
    tmp_path: Path, patterns: list[str]
) -> None:
    with pytest.raises(InvalidInputError, match="pattern"):
        TestBench(make(tmp_path, patterns)).plan(None, CASES)


def make(folder: Path, patterns: list[str]) -> WorkflowProject:
    def first(state: State) -> dict[str, list[str]]:
        assert sorted(p.name for p in current_workspace().iterdir()) == [".wtbignore", "base.txt"]
        write(current_workspace(), "kept.txt", "scratch.tmp", "cache/x")
        return {"log": ["first"]}

    def second(state: State) -> dict[str, list[str]]:
        here = current_workspace()
        found = sorted(str(p.relative_to(here)) for p in here.rglob("*") if p.is_file())
        return {"log": found}

    write(folder / "base", "base.txt", "base.tmp", "cache/of-base")
    write(folder / "base", ".wtbignore", text="cache/\n")
    project = WorkflowProject(
        "ignoring",
        line("a", "b", a=first, b=second),
        db_path=folder / "w.db",
        output_dir=folder / "out",
        workspace=folder / "base",
        ignore_files=patterns,
    )
    project.variant("b", "x", second)
    return project


def test_a_batch_forks_without_them(tmp_path: Path) -> None:
    """The base workspace gives none, a fork has none, and results list none."""
    with TestBench(make(tmp_path, ["*.tmp"])) as bench:
        result = bench.batch({"b": "*"}, CASES[:1], runner="inline")
        assert {cell.status for cell in result.cells} == {"completed"}
        for cell in result.cells:
            assert cell.state["log"][-3:] == [".wtbignore", "base.txt", "kept.txt"]
            files = bench.files(str(cell.execution_id))
            assert sorted(files) == [".wtbignore", "base.txt", "kept.txt"]
        write(tmp_path / "base", "more.tmp", "cache/more")
        assert bench.batch({"b": "*"}, CASES[:1], runner="inline").node_executions == 0
        write(tmp_path / "base", "base.txt", text="changed")
        assert bench.batch({"b": "*"}, CASES[:1], runner="inline").node_executions == 3
