"""File tracking when calls fail, processes die, and several write at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wtb_prefect.domain.file_processing import FileSnapshot
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker

SMALL_COMMIT = {"a.txt": b"alpha", "b/c.bin": os.urandom(5000), "b/d.bin": os.urandom(1_500_000)}


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "store")


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def blob_file(root: Path, blob_id: str) -> Path:
    return root / "store" / "objects" / blob_id[:2] / blob_id[2:]


def named_blobs(root: Path) -> list[Path]:
    objects = root / "store" / "objects"
    return [p for p in objects.rglob("*") if p.is_file() and p.parent.name != "tmp"]


def temporary_files(root: Path) -> list[Path]:
    return list((root / "store" / "objects" / "tmp").iterdir())


def assert_every_blob_is_whole(root: Path) -> None:
    for path in named_blobs(root):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


WRITER = """
import sys
from pathlib import Path
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore
store = LocalBlobStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    store.put_bytes(b"shared %d" % number * 500)
    store.put_bytes(f"{sys.argv[2]} {number}".encode() * 500)
    if number % 10 == 9:
        store.flush()
store.flush()
"""


def start_writer(root: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root / "store"), name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def release(writer: subprocess.Popen[str]) -> None:
    assert writer.stdin is not None
    writer.stdin.write("\n")
    writer.stdin.flush()


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    with start_writer(tmp_path, "one", 200) as one, start_writer(tmp_path, "two", 200) as two:
        for writer in (one, two):
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in (one, two):
            release(writer)
    assert (one.returncode, two.returncode) == (0, 0)
    assert len(named_blobs(tmp_path)) == 600
    assert_every_blob_is_whole(tmp_path)
    assert not temporary_files(tmp_path)


def test_a_killed_process_leaves_only_temporary_files(tmp_path: Path) -> None:
    for delay in (0.002, 0.01, 0.03):
        with start_writer(tmp_path, f"killed {delay}", 100_000) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            release(writer)
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        assert_every_blob_is_whole(tmp_path)
    store = LocalBlobStore(tmp_path / "store")
    blob = store.put_bytes(b"shared 0" * 500)
    store.flush()
    assert store.read(blob) == b"shared 0" * 500


CALLS = ["open", "write", "read", "fsync", "rename", "utime", "stat", "mkdir", "lstat", "symlink"]


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
def test_every_failing_call_is_a_typed_error_that_does_no_harm(
    tmp_path: Path, call: str, code: int
) -> None:
    write(tmp_path / "w", SMALL_COMMIT)
    (tmp_path / "w/link").symlink_to("a.txt")
    tracker = LocalFileTracker(LocalBlobStore(tmp_path / "store"))
    for number in range(1, 200):
        target = tmp_path / f"copy-{number}"
        with failing(call, number, code) as uses:
            outcome = commit_and_restore(tracker, tmp_path / "w", target)
        assert_every_blob_is_whole(tmp_path)
        assert not list(tmp_path.glob(".restoring-*"))
        assert target.exists() == (outcome is None)
        assert commit_and_restore(tracker, tmp_path / "w", tmp_path / f"again-{number}") is None
        assert not temporary_files(tmp_path)
        if uses[0] < number:
            break
        for path in named_blobs(tmp_path):
            path.unlink()
    assert outcome is None


def commit_and_restore(
    tracker: LocalFileTracker, source: Path, target: Path
) -> FileTrackingError | None:
    try:
        tracker.restore(tracker.snapshot(source, FileSnapshot()).files, target)
    except FileTrackingError as exc:
        return exc
    return None


def test_contents_are_synced_before_names_and_names_before_flush_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut would test: kill -9 cannot, because the page cache outlives a process."""
    store = LocalBlobStore(tmp_path / "store")
    other = LocalBlobStore(tmp_path / "store")
    log: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def logged_fsync(fd: int) -> None:
        log.append(("fsync", os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def logged_rename(source: str, target: str) -> None:
        assert ("fsync", source) in log
        log.append(("rename", os.path.dirname(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "rename", logged_rename)
    blobs = [store.put_bytes(b"%d" % number) for number in range(20)]
    store.flush()
    for position, (call, folder) in enumerate(log):
        if call == "rename":
            assert ("fsync", folder) in log[position:]
    log.clear()
    # The other store cannot know that the first one has synced the names it finds.
    assert [other.put_bytes(b"%d" % number) for number in range(20)] == blobs
    other.flush()
    assert {folder for _, folder in log} == {str(blob_file(tmp_path, b).parent) for b in blobs}
    log.clear()
    other.put_bytes(b"1")
    other.flush()
    assert log == []


def test_a_put_lost_in_another_threads_failed_flush_is_reported(store: LocalBlobStore) -> None:
    store.put_bytes(b"mine")
    with ThreadPoolExecutor(1) as pool, failing("fsync", 1, errno.EIO):
        outcome = pool.submit(store.flush).exception()
    assert isinstance(outcome, FileTrackingError)
    with pytest.raises(FileTrackingError, match="lost"):
        store.flush()
    blob = store.put_bytes(b"mine")
    store.flush()
    assert store.read(blob) == b"mine"


def test_a_removed_blob_is_not_taken_for_durable(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put and flushed, removed, put again; then another thread's flush fails with it."""
    blob = store.put_bytes(b"data")
    store.flush()
    assert store.remove(blob, datetime(9000, 1, 1, tzinfo=UTC))
    store.put_bytes(b"data")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(os, "rename", fail)
        with pytest.raises(FileTrackingError, match="the disk is gone"):
            pool.submit(store.flush).result()
    with pytest.raises(FileTrackingError, match="was lost"):
        store.flush()


def test_calls_that_take_only_a_part_lose_nothing(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write or a read may stop short of what was asked for, and say so."""
    real_write, real_read = os.write, os.read
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[: len(data) // 2 + 1]))
    monkeypatch.setattr(os, "read", lambda fd, count: real_read(fd, count // 2 + 1))
    write(tmp_path / "w", SMALL_COMMIT)
    (tmp_path / "copy").mkdir()
    for name, data in SMALL_COMMIT.items():
        blob, size = store.put_file(tmp_path / "w" / name)
        assert (blob, size) == (hashlib.sha256(data).hexdigest(), len(data))
        assert store.put_bytes(data) == blob
        store.flush()
        assert store.read(blob) == data
        store.copy_to(blob, tmp_path / "copy" / name.replace("/", "-"))
        assert (tmp_path / "copy" / name.replace("/", "-")).read_bytes() == data
    assert_every_blob_is_whole(tmp_path)
