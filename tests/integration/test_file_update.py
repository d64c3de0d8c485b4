"""Putting a folder back when blobs are damaged and calls fail."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wtb_prefect.domain.file_processing import FileSnapshot
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import (
    LocalBlobStore,
    LocalFileTracker,
    swap,
)

EARLIER = {"kept": b"k", "edited": os.urandom(5000), "gone/deep": b"deep", "to-folder": b"file"}


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "store")


@pytest.fixture
def tracker(store: LocalBlobStore) -> LocalFileTracker:
    return LocalFileTracker(store)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def blob_file(root: Path, blob_id: str) -> Path:
    return root / "store" / "objects" / blob_id[:2] / blob_id[2:]


def everything(folder: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Paths, modes and contents; folders too."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(folder.rglob("*")):
        content = (
            os.readlink(path)
            if path.is_symlink()
            else (path.read_bytes() if path.is_file() else None)
        )
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def moved_on(tracker: LocalFileTracker, root: Path) -> FileSnapshot:
    """The folder after another step, and what it held before."""
    write(root, EARLIER)
    (root / "link").symlink_to("kept")
    earlier = tracker.snapshot(root, FileSnapshot())
    write(root, {"edited": b"later", "new/file": b"new"})
    for name in ("gone/deep", "to-folder", "link"):
        (root / name).unlink()
    (root / "gone").rmdir()
    write(root, {"to-folder/file": b"1", "link/file": b"1"})
    (root / "to-folder").chmod(0o711)
    return earlier


def bit_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def zero(path: Path) -> None:
    os.truncate(path, 0)


def swapped(path: Path) -> None:
    path.write_bytes(b"another blob")


@pytest.mark.parametrize("damage", [bit_flip, truncate, zero, swapped, Path.unlink])
@pytest.mark.parametrize("victim", ["edited", "gone/deep", "link"])
def test_a_damaged_blob_is_named_with_its_file_before_anything_changes(
    tracker: LocalFileTracker, tmp_path: Path, victim: str, damage: Callable[[Path], None]
) -> None:
    earlier = moved_on(tracker, tmp_path / "w")
    before = everything(tmp_path / "w")
    blob = blob_file(tmp_path, earlier.files[victim].blob_id)
    blob.chmod(0o644)
    damage(blob)
    with pytest.raises(FileTrackingError, match=rf"{earlier.files[victim].blob_id}") as caught:
        tracker.update(earlier.files, tmp_path / "w", FileSnapshot())
    assert repr(victim) in str(caught.value)
    assert everything(tmp_path / "w") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "w"]


CALLS = ["open", "write", "read", "rename", "utime", "mkdir", "lstat", "symlink", "fstat"]


@contextlib.contextmanager
def failing(call: str, number: int, code: int) -> Iterator[list[int]]:
    """The n-th use of `os.<call>` fails; the list says how many there were."""
    real, uses = getattr(os, call), [0]

    def fail(*args: object, **kwargs: object) -> object:
        uses[0] += 1
        if uses[0] == number:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    setattr(os, call, fail)
    try:
        yield uses
    finally:
        setattr(os, call, real)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", CALLS)
def test_whichever_call_fails_the_folder_is_as_it_was(
    tracker: LocalFileTracker, tmp_path: Path, call: str, code: int
) -> None:
    root = tmp_path / "w"
    failures = 0
    for number in range(1, 200):
        shutil.rmtree(root, ignore_errors=True)
        earlier = moved_on(tracker, root)
        before = everything(root)
        outcome: FileTrackingError | None = None
        with failing(call, number, code) as uses:
            try:
                tracker.update(earlier.files, root, FileSnapshot())
            except FileTrackingError as exc:
                outcome = exc
        if outcome is not None:
            failures += 1
            assert everything(root) == before
            assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "w"]
        else:
            assert tracker.snapshot(root, FileSnapshot()).files == earlier.files
        if uses[0] < number:
            break
    assert outcome is None
    assert failures


def test_what_cannot_be_put_back_is_kept_and_named(
    tracker: LocalFileTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = moved_on(tracker, tmp_path / "w")
    rename = os.rename

    def refuse(source: str, target: str) -> None:
        into_place = str(target).startswith(str(tmp_path / "w"))
        if into_place:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(FileTrackingError, match="half changed"):
        tracker.update(earlier.files, tmp_path / "w", FileSnapshot())
    [left] = tmp_path.glob(".updating-*")
    kept = [path.read_bytes() for path in (left / swap.HALF_CHANGED).iterdir()]
    assert b"new" in kept


def test_only_what_differs_is_written_and_read(tracker: LocalFileTracker, tmp_path: Path) -> None:
    root = tmp_path / "w"
    write(root, {f"d/{number}": b"%d" % number for number in range(20)})
    settled = time.time_ns() - 10**10
    for path in (root / "d").iterdir():
        os.utime(path, ns=(settled, settled))
    taken = tracker.snapshot(root, FileSnapshot())
    (root / "d/3").write_bytes(b"edited")
    inodes = {path: path.stat().st_ino for path in root.rglob("*")}
    for path, memento in taken.files.items():
        if path != "d/3":
            blob_file(tmp_path, memento.blob_id).unlink()
    updated = tracker.update(taken.files, root, taken)
    changed = [p.name for p, inode in inodes.items() if p.stat().st_ino != inode]
    assert changed == ["3"]
    assert tracker.snapshot(root, updated) == updated
