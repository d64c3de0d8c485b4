"""Commits, restores and updates on a file system that is really full."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces

INSIDE = "WTB_TEST_IN_NAMESPACE"
NO_SPACE = r"No space left on device"


def mounted(place: Path) -> subprocess.CompletedProcess[str]:
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "small"
    done = mounted(place)
    if done.returncode:
        pytest.skip(f"this process cannot mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_the_same_in_a_user_namespace_where_this_process_cannot_mount(tmp_path: Path) -> None:
    if INSIDE in os.environ or mounted(tmp_path / "probe").returncode == 0:
        subprocess.run(["umount", str(tmp_path / "probe")], check=False, capture_output=True)
        pytest.skip("it can")
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine has no user namespaces")
    pytest_again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        [*inside, *pytest_again],
        env={**os.environ, INSIDE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def fill_up(folder: Path, but: int = 0) -> Path:
    """A file that leaves so many bytes."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - but)
    return ballast


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def everything(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


LATE = {"a/small": b"1", "b/large": os.urandom(700_000), "c/last": b"3"}


@pytest.fixture
def files(tmp_path: Path, tracker: LocalFileTracker) -> dict[str, FileMemento]:
    """Of them the second needs more room than there is; the store has room for all."""
    write(tmp_path / "source", LATE)
    return dict(tracker.snapshot(tmp_path / "source", FileSnapshot()).files)


@pytest.fixture
def tracker(tmp_path: Path) -> LocalFileTracker:
    return LocalFileTracker(LocalBlobStore(tmp_path / "store"))


def test_a_commit_names_the_file_and_keeps_no_half_blob(small: Path, tmp_path: Path) -> None:
    write(tmp_path / "w", {**LATE, "streamed": os.urandom(1_200_000)})
    store = small / "store"
    tracker = LocalFileTracker(LocalBlobStore(store))
    ballast = fill_up(small, but=500_000)
    with pytest.raises(FileTrackingError, match=f"(large|streamed)'.*{NO_SPACE}"):
        tracker.snapshot(tmp_path / "w", FileSnapshot())
    for blob in (store / "objects").glob("??/*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.parent.name + blob.name
    half = [p for p in (store / "objects/tmp").iterdir() if p.stat().st_size not in (1,)]
    assert not half
    ballast.unlink()
    (tmp_path / "w/streamed").unlink()
    taken = tracker.snapshot(tmp_path / "w", FileSnapshot())
    assert sorted(taken.files) == sorted(LATE)
    tracker.verify(taken.files.values())
    assert not list((store / "objects/tmp").iterdir())


def test_what_was_put_before_the_disk_was_full_can_be_flushed(small: Path) -> None:
    store = LocalBlobStore(small / "store")
    blob = store.put_bytes(b"in time")
    fill_up(small)
    with pytest.raises(FileTrackingError, match=f"cannot store 5 bytes.*{NO_SPACE}"):
        store.put_bytes(b"later")
    with pytest.raises(FileTrackingError, match=f"ledger.*{NO_SPACE}"):
        store.register_ledger("sqlite:///one.db")
    store.flush()
    assert store.read(blob) == b"in time"
    assert store.ledgers() == {}


def test_a_restore_names_the_file_and_leaves_nothing(
    small: Path, tracker: LocalFileTracker, files: dict[str, FileMemento]
) -> None:
    ballast = fill_up(small, but=300_000)
    with pytest.raises(FileTrackingError, match=f"'b/large' cannot be restored.*{NO_SPACE}"):
        tracker.restore(files, small / "w")
    assert list(small.iterdir()) == [ballast]
    ballast.unlink()
    tracker.restore(files, small / "w")
    assert tracker.snapshot(small / "w", FileSnapshot()).files == files


@pytest.mark.parametrize("room", [0, 300_000])
def test_an_update_names_the_file_and_leaves_the_folder_as_it_was(
    small: Path, tracker: LocalFileTracker, files: dict[str, FileMemento], room: int
) -> None:
    root = small / "w"
    write(root, {"a/small": b"edited", "c/later": b"new", "d": b"4"})
    (root / "d").chmod(0o600)
    before = everything(root)
    ballast = fill_up(small, but=room)
    with pytest.raises(FileTrackingError, match=f"'.*' cannot be restored.*{NO_SPACE}"):
        tracker.update(files, root, FileSnapshot())
    assert everything(root) == before
    assert sorted(small.iterdir()) == [ballast, root]
    ballast.unlink()
    tracker.update(files, root, FileSnapshot())
    assert tracker.snapshot(root, FileSnapshot()).files == files


@pytest.mark.parametrize("room", [0, 300_000])
def test_a_workspace_of_an_earlier_attempt_stays(
    small: Path, tracker: LocalFileTracker, files: dict[str, FileMemento], room: int
) -> None:
    workspaces = FolderWorkspaces(small / "w", tracker)
    folder = workspaces.open("e-1", "case", {}).path()
    write(folder, {"mine": b"1"})
    ballast = fill_up(small, but=room)
    again = workspaces.open("e-1", "case", files)
    with pytest.raises(FileTrackingError, match=f"(b/large|case-e-1).*{NO_SPACE}"):
        again.path()
    assert everything(small / "w") == {
        "case-e-1": (folder.lstat().st_mode, None),
        "case-e-1/mine": ((folder / "mine").lstat().st_mode, b"1"),
    }
    owners = sorted(path.name for path in (small / "w-owners").iterdir())
    assert owners == [".lock", "case-e-1.json"]
    ballast.unlink()
    assert tracker.snapshot(again.path(), FileSnapshot()).files == files
