"""Syncing a file system as a whole, and cloning files where it can."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, file_system


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "store")


def blob_file(root: Path, blob_id: str) -> Path:
    return root / "store" / "objects" / blob_id[:2] / blob_id[2:]


def bit_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_many_blobs_are_synced_at_once_before_they_get_their_names(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    class Logged(file_system.FileSystemSync):
        is_safe = True

        def sync(self) -> None:
            log.append("all")

    rename, fsync = os.rename, os.fsync
    monkeypatch.setattr(os, "rename", lambda a, b: (log.append("rename"), rename(a, b)))
    monkeypatch.setattr(os, "fsync", lambda fd: (log.append("fsync"), fsync(fd)))
    store._whole = Logged(str(tmp_path))
    blobs = [store.put_bytes(b"%d" % number) for number in range(100)]
    store.flush()
    folders = len({blob[:2] for blob in blobs})
    assert log == ["all", *["rename"] * 100, *["fsync"] * folders]


def test_blobs_that_cannot_be_synced_at_once_get_no_names(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    class Failing(file_system.FileSystemSync):
        is_safe = True

        def sync(self) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    store._whole = Failing(str(tmp_path))
    blobs = [store.put_bytes(b"%d" % number) for number in range(100)]
    with pytest.raises(FileTrackingError, match="durable"):
        store.flush()
    assert not any(store.exists(blob) for blob in blobs)
    assert not list((tmp_path / "store/objects/tmp").iterdir())


def test_networks_and_fuse_are_synced_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, safe in (("ext4", True), ("fuse.sshfs", False), ("nfs4", False), (None, False)):
        monkeypatch.setattr(file_system, "_type_of", lambda _, kind=kind: kind)
        monkeypatch.setattr(file_system, "_reports_errors", lambda: True)
        assert file_system.FileSystemSync(str(tmp_path)).is_safe is safe


@pytest.fixture
def cloning(tmp_path: Path) -> Iterator[Path]:
    """A folder on XFS, which clones files; only root can mount one."""
    image, mount = tmp_path / "xfs.img", tmp_path / "xfs"
    if shutil.which("mkfs.xfs") is None or os.geteuid() != 0:
        pytest.skip("no mkfs.xfs, or not root")
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    mount.mkdir()
    if subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=False).returncode:
        pytest.skip("this machine mounts no loop devices")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_clones_are_verified_and_on_their_own(cloning: Path) -> None:
    store = LocalBlobStore(cloning / "store")
    assert store.strategy(cloning / "w") == "reflink"
    data = os.urandom(8 << 20)
    blob = store.put_bytes(data)
    store.flush()
    free = shutil.disk_usage(cloning).free
    store.copy_to(blob, cloning / "clone")
    os.sync()
    assert free - shutil.disk_usage(cloning).free < 1 << 20
    with (cloning / "clone").open("r+b") as file:
        file.write(b"EDIT")
    assert store.read(blob) == data
    small = store.put_bytes(b"small")
    store.flush()
    store.copy_to(small, cloning / "small")
    assert (cloning / "small").read_bytes() == b"small"
    path = blob_file(cloning, blob)
    path.chmod(0o644)
    bit_flip(path)
    with pytest.raises(FileTrackingError, match=blob):
        store.copy_to(blob, cloning / "bad")
    assert not (cloning / "bad").exists()


def test_where_nothing_can_be_cloned_files_are_copied(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    asked = []

    def refuse(*_: object) -> int:
        asked.append(1)
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert store.strategy(tmp_path) == "copy"
    asked.clear()
    blob = store.put_bytes(b"bytes" * (1 << 18))
    store.flush()
    for name in ("one", "two"):
        store.copy_to(blob, tmp_path / name)
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == blob
    assert len(asked) == 1
