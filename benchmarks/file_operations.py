"""What files cost: commits, forks and restores of 10,000 files, each beside its floor.

Both sides run alternately in new folders, and the best run of each counts: for some time after
many files were deleted ext4 takes up to ten times as long to make a file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.file_tracking import make_files
from benchmarks.measures import Figure
from wtb_prefect.domain.file_processing import FileSnapshot
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces
from wtb_prefect.infrastructure.workspace.overlays import why_no_overlays

SIZE = 10_240
CHANGED = 100
_SETTLE_SECONDS = 0.05
_COPY = 1 << 30


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _tracker(base: Path) -> LocalFileTracker:
    return LocalFileTracker(LocalBlobStore(base / "store"))


def first_commit(folder: Path, quick: bool) -> list[Figure]:
    """The first durable commit, against a plain loop and against git that syncs."""
    count, repeats = (1_000, 2) if quick else (10_000, 3)
    taken: dict[str, list[float]] = {"ours": [], "floor": [], "git": []}
    for repeat in range(repeats):
        _first_commits(folder / str(repeat), count, taken)
    ours, floor, git = (min(taken[name]) for name in ("ours", "floor", "git"))
    what = f"first durable commit of {count:,} x 10 KB"
    raw = {"ours_s": ours, "floor_s": floor, "git_s": git}
    return [
        Figure(
            f"{what}, against a plain loop with one syncfs",
            f"{ours / floor:.2f} times ({ours:.2f} s against {floor:.2f} s)",
            "at most 1.3 times",
            ours <= 1.3 * floor,
            raw,
        ),
        Figure(
            f"{what}, against `git add` that syncs (core.fsync=all, fsyncMethod=batch)",
            f"{git / ours:.1f} times faster (git {git:.2f} s)",
            "faster",
            ours < git,
            raw,
        ),
    ]


def _first_commits(base: Path, count: int, taken: dict[str, list[float]]) -> None:
    paths = make_files(base / "tree", count, SIZE, seed=count)
    os.sync()
    tracker = _tracker(base)
    taken["floor"].append(_seconds(lambda: _floor_commit(paths, base / "floor")))
    taken["ours"].append(_seconds(lambda: tracker.snapshot(base / "tree", FileSnapshot())))
    taken["git"].append(_git_add(base / "tree", base / "git"))


def _floor_commit(paths: list[Path], folder: Path) -> None:
    """Read, hash and copy each file to a temp file; one syncfs; rename all; one syncfs."""
    folder.mkdir()
    for number in range(256):
        os.mkdir(f"{folder}/{number:02x}")
    names = []
    for path in paths:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        name = f"{folder}/{len(names)}.tmp"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        os.write(fd, data)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        names.append((name, f"{folder}/{digest[:2]}/{digest[2:]}"))
    _syncfs(folder)
    for name, final in names:
        os.rename(name, final)
    _syncfs(folder)


def _syncfs(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(fd)


def _git_add(tree: Path, repository: Path) -> float:
    git = ["git", f"--git-dir={repository}", f"--work-tree={tree}"]
    subprocess.run(["git", "init", "--quiet", "--bare", str(repository)], check=True)
    options = ["-c", "core.fsync=all", "-c", "core.fsyncMethod=batch"]
    return _seconds(
        lambda: subprocess.run([*git, *options, "add", "--all", "."], cwd=tree, check=True)
    )


def later_commits(folder: Path, quick: bool) -> list[Figure]:
    """A commit of a tree that has not changed, and of one with a single change."""
    count, repeats = (1_000, 3) if quick else (10_000, 7)
    make_files(folder / "tree", count, SIZE, 0)
    tracker = _tracker(folder)
    time.sleep(_SETTLE_SECONDS)
    taken = tracker.snapshot(folder / "tree", FileSnapshot())
    unchanged, touched = [], []
    for repeat in range(repeats):
        unchanged.append(_seconds(partial(tracker.snapshot, folder / "tree", taken)))
        (folder / f"tree/part-{repeat}/file-{repeat * 20}.bin").write_bytes(b"%d" % repeat * 999)
        began = time.perf_counter()
        after = tracker.snapshot(folder / "tree", taken)
        changed, removed = after.changes_since(taken.files)
        touched.append(time.perf_counter() - began)
        assert len(changed) == 1
        assert not removed
        time.sleep(_SETTLE_SECONDS)
        taken = tracker.snapshot(folder / "tree", after)
    return [
        _limit(f"commit of {count:,} unchanged files", statistics.median(unchanged), 0.25),
        _limit(f"super-step that touches 1 of {count:,} files", statistics.median(touched), 0.3),
    ]


def _limit(what: str, seconds: float, limit: float) -> Figure:
    return Figure(
        what, f"{seconds:.4f} s", f"at most {limit} s", seconds <= limit, {"seconds": seconds}
    )


def fork_and_restore(folder: Path, quick: bool) -> list[Figure]:
    """A workspace made from blobs, against the best copy the file system offers; and one that is
    put back to an earlier commit."""
    count, repeats = (1_000, 3) if quick else (10_000, 5)
    paths = [str(path) for path in make_files(folder / "tree", count, SIZE, 0)]
    blobs = LocalBlobStore(folder / "store")
    tracker = LocalFileTracker(blobs)
    files = tracker.snapshot(folder / "tree", FileSnapshot()).files
    os.sync()
    ours, floor, back = [], [], []
    for repeat in range(repeats):
        base, target = str(folder / f"floor-{repeat}"), folder / f"copy-{repeat}"
        floor.append(_seconds(partial(_best_copy, paths, str(folder / "tree"), base)))
        began = time.perf_counter()
        made = tracker.restore(files, target)
        ours.append(time.perf_counter() - began)
        _change(target)
        changed = tracker.snapshot(target, made)
        back.append(_seconds(partial(tracker.update, files, target, changed)))
        assert tracker.snapshot(target, FileSnapshot()).files == files
    mine, best = min(ours), min(floor)
    how = blobs.strategy(folder)
    return [
        Figure(
            f"fork of a workspace of {count:,} files ({how}), against the best plain copy",
            f"{mine / best:.2f} times ({mine:.2f} s against {best:.2f} s, which checks no hash "
            "and keeps no times)",
            "at most 1.3 times",
            mine <= 1.3 * best,
            {"ours_s": mine, "floor_s": best},
        ),
        _limit(f"restore of {CHANGED} changed among {count:,} files", statistics.median(back), 0.5),
    ]


def overlay_fork(folder: Path, quick: bool) -> list[Figure]:
    """A workspace mounted over starting files that are there, and taken away again."""
    what = "overlay workspace of {:,} files, once its starting files are there"
    count, repeats = (1_000, 11) if quick else (10_000, 31)
    if (reason := why_no_overlays(folder)) is not None:
        return [Figure(what.format(count), reason, "not to be had here", True, {})]
    make_files(folder / "tree", count, SIZE, 0)
    tracker = _tracker(folder)
    files = tracker.snapshot(folder / "tree", FileSnapshot()).files
    workspaces = FolderWorkspaces(folder / "w", tracker, overlay=True)
    workspaces.open("first", "case", files).path()
    same, other = [], []
    for repeat in range(repeats):
        # As read again from the ledger, and as the same object.
        again = {path: replace(memento) for path, memento in files.items()}
        for start, taken in ((again, other), (again, same)):
            workspace = workspaces.open(f"{repeat}-{len(taken)}", "case", start)
            taken.append(_seconds(workspace.path))
            workspace.remove()
    workspaces.open("first", "case", files).remove()
    workspaces.sweep()
    return [
        _limit(what.format(count), statistics.median(same), 0.005),
        _limit(f"{what.format(count)}, read again from the ledger", statistics.median(other), 0.02),
    ]


def _change(folder: Path) -> None:
    """A third of the changed files edited, a third deleted, a third new."""
    for number in range(CHANGED // 3):
        (folder / f"part-{number}/file-{number * 20}.bin").write_bytes(b"edited")
        (folder / f"part-{number}/file-{number * 20 + 1}.bin").unlink()
    for number in range(CHANGED - 2 * (CHANGED // 3)):
        (folder / f"later-{number}").mkdir()
        (folder / f"later-{number}/file").write_bytes(b"new")


def _best_copy(paths: list[str], source: str, folder: str) -> None:
    """`copy_file_range` (clones where it can) of every file."""
    made = set()
    for path in paths:
        target = folder + path[len(source) :]
        parent = os.path.dirname(target)
        if parent not in made:
            os.makedirs(parent)
            made.add(parent)
        read = os.open(path, os.O_RDONLY)
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        while os.copy_file_range(read, write, _COPY):
            pass
        os.close(read)
        os.close(write)


def tracking_cost(folder: Path, quick: bool) -> list[Figure]:
    """What a super-step pays for ten files that it did not touch."""
    calls = 100 if quick else 1_000
    make_files(folder / "tree", 10, SIZE, 0)
    tracker = _tracker(folder)
    time.sleep(_SETTLE_SECONDS)
    taken = tracker.snapshot(folder / "tree", FileSnapshot())
    seconds = [_seconds(lambda: tracker.snapshot(folder / "tree", taken)) for _ in range(calls)]
    median = statistics.median(seconds)
    return [
        Figure(
            "tracking in a super-step that changes none of 10 files",
            f"{median * 1e3:.3f} ms",
            "at most 1 ms",
            median <= 1e-3,
            {"seconds": median},
        )
    ]
