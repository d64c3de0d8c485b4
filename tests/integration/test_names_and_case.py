"""Names that differ in case only, where the file system tells them apart and where it does not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker

COLLISIONS = [
    (["Read/Me", "read/me"], "'Read' and 'read' are one here"),
    (["read/Me", "read/me"], "'read/Me' and 'read/me' are one here"),
    (["Read/a", "read/b"], "'Read' and 'read' are one here"),
    (["NAME", "name/file"], "'NAME' and 'name' are one here"),
]
Write = Callable[[dict[str, FileMemento], Path], object]


@pytest.fixture
def tracker(tmp_path: Path) -> LocalFileTracker:
    return LocalFileTracker(LocalBlobStore(tmp_path / "store"))


@pytest.fixture(params=["restore", "update"])
def write(request: pytest.FixtureRequest, tracker: LocalFileTracker) -> Write:
    if request.param == "restore":
        return tracker.restore
    return lambda files, root: tracker.update(files, root, FileSnapshot())


def stored(tracker: LocalFileTracker, paths: list[str]) -> dict[str, FileMemento]:
    return {m.path: m for m in tracker.store_texts((path, path.encode()) for path in paths)}


def formatted(image: Path, kind: str) -> list[str] | None:
    """How to mount a file system of a kind that ignores case; None where there is no such tool."""
    if kind == "tmpfs":
        return ["-t", "tmpfs", "-o", "casefold=utf8-12.1.0", "none"]
    make = {"ext4": ["mkfs.ext4", "-q", "-O", "casefold"], "vfat": ["mkfs.vfat"]}[kind]
    with image.open("wb") as file:
        file.truncate(16 << 20)
    try:
        subprocess.run([*make, str(image)], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return ["-o", "loop", str(image)]


@pytest.fixture
def ignoring(tmp_path: Path) -> Iterator[Path]:
    """A folder of a real file system in which case is ignored."""
    place = tmp_path / "ignoring"
    place.mkdir()
    for kind in ("tmpfs", "ext4", "vfat"):
        how = formatted(tmp_path / f"{kind}.image", kind)
        if how is None:
            continue
        if subprocess.run(["mount", *how, place], check=False, capture_output=True).returncode:
            continue
        try:
            folder = place / "folder"
            folder.mkdir()
            subprocess.run(["chattr", "+F", folder], check=False, capture_output=True)
            if _is_ignoring(folder):
                yield folder
                return
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
    pytest.skip("this machine mounts no file system that ignores case (tmpfs, ext4, vfat)")


def _is_ignoring(folder: Path) -> bool:
    (folder / "probe").touch()
    try:
        return os.path.lexists(folder / "PROBE")
    finally:
        (folder / "probe").unlink()


@pytest.mark.parametrize(("paths", "message"), COLLISIONS)
def test_they_are_refused_on_a_file_system_that_ignores_case(
    ignoring: Path, tracker: LocalFileTracker, write: Write, paths: list[str], message: str
) -> None:
    with pytest.raises(FileTrackingError, match=message):
        write(stored(tracker, paths), ignoring / "w")
    assert not list(ignoring.iterdir())


@pytest.mark.parametrize(("paths", "message"), COLLISIONS)
def test_they_are_refused_where_a_look_up_ignores_case(
    tmp_path: Path,
    tracker: LocalFileTracker,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[str],
    message: str,
) -> None:
    """The same by a stand-in, for machines that have no such file system."""
    files = stored(tracker, paths)
    lexists = os.path.lexists

    def ignoring_case(path: str) -> bool:
        parent, name = os.path.split(path)
        here = os.listdir(parent) if os.path.isdir(parent) else []
        return lexists(path) or name.lower() in map(str.lower, here)

    monkeypatch.setattr(os.path, "lexists", ignoring_case)
    with pytest.raises(FileTrackingError, match=message):
        write(files, tmp_path / "w")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(("paths", "message"), COLLISIONS)
def test_they_are_different_files_elsewhere(
    tmp_path: Path, tracker: LocalFileTracker, write: Write, paths: list[str], message: str
) -> None:
    files = stored(tracker, paths)
    write(files, tmp_path / "w")
    if _is_ignoring(tmp_path):
        pytest.skip(f"here {message}")
    assert tracker.snapshot(tmp_path / "w", FileSnapshot()).files == files
