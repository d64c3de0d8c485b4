"""File tracking against damage, faults, races and hostile names."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot, StatSignature
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces

SMALL_COMMIT = {"a.txt": b"alpha", "b/c.bin": os.urandom(5000), "b/d.bin": os.urandom(1_500_000)}


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


def named_blobs(root: Path) -> list[Path]:
    objects = root / "store" / "objects"
    return [p for p in objects.rglob("*") if p.is_file() and p.parent.name != "tmp"]


def assert_every_blob_is_whole(root: Path) -> None:
    for path in named_blobs(root):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


def bit_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def zero(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [bit_flip, truncate, zero, Path.unlink])
@pytest.mark.parametrize("victim", SMALL_COMMIT)
def test_damage_is_refused_and_named(
    tracker: LocalFileTracker, tmp_path: Path, victim: str, damage: Callable[[Path], None]
) -> None:
    write(tmp_path / "w", SMALL_COMMIT)
    files = tracker.snapshot(tmp_path / "w", FileSnapshot()).files
    blob = blob_file(tmp_path, files[victim].blob_id)
    blob.chmod(0o644)
    damage(blob)
    with pytest.raises(FileTrackingError, match=files[victim].blob_id):
        tracker.restore(files, tmp_path / "copy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "w"]


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_damaged_copy_does_not_stay(store: LocalBlobStore, tmp_path: Path, size: int) -> None:
    blob = store.put_bytes(b"x" * size)
    store.flush()
    blob_file(tmp_path, blob).chmod(0o644)
    bit_flip(blob_file(tmp_path, blob))
    with pytest.raises(FileTrackingError, match=blob):
        store.copy_to(blob, tmp_path / "target")
    with pytest.raises(FileTrackingError, match=blob):
        store.read(blob)
    assert not (tmp_path / "target").exists()


def test_a_recorded_size_that_is_wrong_is_refused(
    tracker: LocalFileTracker, tmp_path: Path
) -> None:
    (memento,) = tracker.store_texts([("a", b"12345")])
    with pytest.raises(FileTrackingError, match=memento.blob_id):
        tracker.restore({"a": dataclasses.replace(memento, size=4)}, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_blob_of_the_wrong_size_is_healed_by_the_next_put(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    blob = store.put_bytes(b"whole")
    store.flush()
    path = blob_file(tmp_path, blob)
    path.chmod(0o644)
    truncate(path)
    store.put_bytes(b"whole")
    store.flush()
    assert store.read(blob) == b"whole"


def test_edits_in_the_same_tick_are_seen(tracker: LocalFileTracker, tmp_path: Path) -> None:
    """Back-to-back edits of one size, as fast as they come: most share a tick of the clock."""
    write(tmp_path / "w", {"f": b"0000"})
    taken = tracker.snapshot(tmp_path / "w", FileSnapshot())
    for number in range(1, 300):
        data = b"%04d" % number
        (tmp_path / "w/f").write_bytes(data)
        taken = tracker.snapshot(tmp_path / "w", taken)
        assert taken.files["f"].blob_id == hashlib.sha256(data).hexdigest()


def blinded(taken: FileSnapshot, file: Path, taken_ns: int) -> FileSnapshot:
    """The snapshot, had the file's times not moved since."""
    found = file.lstat()
    same = StatSignature(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
    return dataclasses.replace(taken, stats={file.name: same}, taken_ns=taken_ns)


def test_an_edit_that_leaves_no_trace_in_the_stat_is_seen_while_the_file_is_young(
    tracker: LocalFileTracker, tmp_path: Path
) -> None:
    file = tmp_path / "w/f"
    write(tmp_path / "w", {"f": b"old!"})
    taken = tracker.snapshot(tmp_path / "w", FileSnapshot())
    file.write_bytes(b"new!")
    blind = blinded(taken, file, taken_ns=file.stat().st_mtime_ns)
    after = tracker.snapshot(tmp_path / "w", blind)
    assert after.files["f"].blob_id == hashlib.sha256(b"new!").hexdigest()


def test_a_chmod_that_leaves_no_trace_in_the_times_is_seen(
    tracker: LocalFileTracker, tmp_path: Path
) -> None:
    file = tmp_path / "w/f"
    write(tmp_path / "w", {"f": b"#!"})
    taken = tracker.snapshot(tmp_path / "w", FileSnapshot())
    file.chmod(0o755)
    long_after = file.stat().st_mtime_ns + 10**10
    after = tracker.snapshot(tmp_path / "w", blinded(taken, file, long_after))
    assert after.files["f"].mode == 0o755


def test_an_edit_just_after_a_restore_is_seen(tracker: LocalFileTracker, tmp_path: Path) -> None:
    files = {m.path: m for m in tracker.store_texts([("f", b"old!"), ("g", b"#!")])}
    for number in range(50):
        folder = tmp_path / f"w{number}"
        restored = tracker.restore(files, folder)
        (folder / "f").write_bytes(b"new!")
        (folder / "g").chmod(0o755)
        after = tracker.snapshot(folder, restored)
        assert after.files["f"].blob_id == hashlib.sha256(b"new!").hexdigest()
        assert after.files["g"].mode == 0o755


def test_an_old_file_is_not_read_again(tracker: LocalFileTracker, tmp_path: Path) -> None:
    write(tmp_path / "w", {"f": b"1"})
    time.sleep(0.05)
    taken = tracker.snapshot(tmp_path / "w", FileSnapshot())
    blob_file(tmp_path, taken.files["f"].blob_id).unlink()
    assert tracker.snapshot(tmp_path / "w", taken) is taken
    assert not named_blobs(tmp_path)


ESCAPES = ["../f", "/etc/f", "a/../../f", "a/./f", "a//f", "a/", "", ".", "..", "a\0b", "\udcff"]


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_that_could_leave_the_workspace_are_refused(
    tracker: LocalFileTracker, tmp_path: Path, path: str
) -> None:
    (good,) = tracker.store_texts([("good", b"1")])
    bad = dataclasses.replace(good, path=path)
    with pytest.raises(FileTrackingError):
        tracker.restore({"good": good, path: bad}, tmp_path / "deep/w")
    with pytest.raises(FileTrackingError):
        tracker.store_texts([(path, b"1")])
    assert sorted(p.name for p in tmp_path.rglob("*") if "store" not in p.parts) == []


@pytest.mark.parametrize("link_path", ["sub", "sub/deeper"])
def test_nothing_is_written_below_a_link(
    tracker: LocalFileTracker, tmp_path: Path, link_path: str
) -> None:
    """The symlinked parent of borg's CVE-2026-62268."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (link,) = tracker.store_texts([(link_path, str(outside).encode())])
    (below,) = tracker.store_texts([("sub/deeper/owned", b"1")])
    files = {link_path: dataclasses.replace(link, is_symlink=True), below.path: below}
    with pytest.raises(FileTrackingError, match=f"'{link_path}' is recorded both"):
        tracker.restore(files, tmp_path / "w")
    assert not list(outside.iterdir())
    assert not (tmp_path / "w").exists()


def test_a_link_is_not_followed_when_its_file_is_read(
    tracker: LocalFileTracker, tmp_path: Path
) -> None:
    write(tmp_path, {"secret/key": b"do not store"})
    (tmp_path / "w").mkdir()
    (tmp_path / "w/file").symlink_to(tmp_path / "secret/key")
    (tmp_path / "w/folder").symlink_to(tmp_path / "secret")
    files = tracker.snapshot(tmp_path / "w", FileSnapshot()).files
    assert sorted(files) == ["file", "folder"]
    assert b"do not store" not in [path.read_bytes() for path in named_blobs(tmp_path)]


def test_what_is_no_file_is_named(tracker: LocalFileTracker, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    os.mkfifo(folder / "queue")
    with pytest.raises(FileTrackingError, match="queue"):
        tracker.snapshot(folder, FileSnapshot())
    (folder / "queue").unlink()
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(folder):
        listener.bind("sock")
    with pytest.raises(FileTrackingError, match="sock"):
        tracker.snapshot(folder, FileSnapshot())


def test_names_of_every_kind_come_back(tracker: LocalFileTracker, tmp_path: Path) -> None:
    names = [
        "naïve.txt",
        "文件/数据.txt",
        "e\u0301",
        "é",
        "new\nline",
        " space ",
        "-rf",
        "a.",
        "\\",
    ]
    files = {name: name.encode() for name in [*names, "x" * 200, "é" * 100 + "/" + "y" * 255]}
    write(tmp_path / "w", files)
    taken = tracker.snapshot(tmp_path / "w", FileSnapshot())
    assert sorted(taken.files) == sorted(files)
    tracker.restore(taken.files, tmp_path / "copy")
    assert all((tmp_path / "copy" / name).read_bytes() == data for name, data in files.items())


def test_a_name_that_is_no_text_is_named(tracker: LocalFileTracker, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / os.fsdecode(b"w/bad-\xff")).touch()
    with pytest.raises(FileTrackingError, match="bad-"):
        tracker.snapshot(tmp_path / "w", FileSnapshot())


def test_a_name_too_long_to_write_is_a_typed_error(
    tracker: LocalFileTracker, tmp_path: Path
) -> None:
    (memento,) = tracker.store_texts([("x" * 256, b"1")])
    with pytest.raises(FileTrackingError):
        tracker.restore({memento.path: memento}, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_stored_blobs_are_read_only(tracker: LocalFileTracker, tmp_path: Path) -> None:
    tracker.store_texts([("a", b"1")])
    assert [path.stat().st_mode & 0o222 for path in named_blobs(tmp_path)] == [0]


@contextlib.contextmanager
def running(program: str, argument: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", program, str(argument)]) as process:
        try:
            yield
        finally:
            process.kill()


def test_files_that_come_and_go_do_not_disturb_a_snapshot(
    tracker: LocalFileTracker, tmp_path: Path
) -> None:
    churn = (
        "import sys, os, itertools\n"
        "for n in itertools.count():\n"
        "    d = f'{sys.argv[1]}/d{n % 5}'\n"
        "    os.makedirs(d, exist_ok=True)\n"
        "    open(f'{d}/f', 'w').write(str(n))\n"
        "    os.unlink(f'{d}/f')\n"
        "    os.rmdir(d)\n"
    )
    write(tmp_path / "w", {"steady": b"1"})
    with running(churn, tmp_path / "w"):
        taken = FileSnapshot()
        for _ in range(300):
            taken = tracker.snapshot(tmp_path / "w", taken)
            assert "steady" in taken.files


class FileVanishes(LocalBlobStore):
    """The file is deleted between being seen and being read."""

    def put_file(self, source: Path) -> tuple[BlobId, int]:
        source.unlink()
        return super().put_file(source)


def test_a_file_that_vanishes_before_it_is_read_is_absent(tmp_path: Path) -> None:
    write(tmp_path / "w", {"gone": b"1"})
    (tmp_path / "w/link").symlink_to("gone")
    tracker = LocalFileTracker(FileVanishes(tmp_path / "store"))
    assert list(tracker.snapshot(tmp_path / "w", FileSnapshot()).files) == ["link"]


def test_a_growing_file_is_recorded_as_stored(tracker: LocalFileTracker, tmp_path: Path) -> None:
    grow = "import sys\nwith open(sys.argv[1], 'ab', 0) as f:\n    while True: f.write(b'x' * 999)"
    write(tmp_path / "w", {"log": b""})
    with running(grow, tmp_path / "w/log"):
        taken = FileSnapshot()
        for _ in range(10):
            taken = tracker.snapshot(tmp_path / "w", taken)
    tracker.restore(taken.files, tmp_path / "copy")
    assert (tmp_path / "copy/log").stat().st_size == taken.files["log"].size
    settled = tracker.snapshot(tmp_path / "w", taken)
    assert settled.files["log"].size == (tmp_path / "w/log").stat().st_size


def test_a_fork_is_on_its_own(tracker: LocalFileTracker, tmp_path: Path) -> None:
    """Every way of writing to a file, in one fork: none shows in the other or in the source."""
    source = {"write": b"base", "append": b"base", "delete": b"base", "sub/new": b"base"}
    write(tmp_path / "source", source)
    start = tracker.snapshot(tmp_path / "source", FileSnapshot()).files
    workspaces = FolderWorkspaces(tmp_path / "forks", tracker)
    one, two = (workspaces.open(f"e-{n}", "fork", start).path() for n in (1, 2))
    with open(one / "write", "r+b") as file:
        file.write(b"EDIT")
    with open(one / "append", "ab") as file:
        file.write(b"more")
    (one / "delete").unlink()
    os.truncate(one / "sub/new", 0)
    (one / "sub/new").chmod(0o600)
    for folder in (tmp_path / "source", two):
        assert {name: (folder / name).read_bytes() for name in source} == source
    assert (two / "sub/new").stat().st_mode & 0o777 == 0o644
    assert_every_blob_is_whole(tmp_path)


@pytest.mark.parametrize(
    "label",
    [
        "model=a,prompt=b|c/case 1-2",
        "../../escape",
        "/absolute",
        "a//b/./..",
        "",
        "nul\0new\nline",
        "\udcff",
        "é" * 300 + "/" + "x" * 300,
    ],
)
def test_labels_are_made_safe(tracker: LocalFileTracker, tmp_path: Path, label: str) -> None:
    root = tmp_path / "forks"
    folder = FolderWorkspaces(root, tracker).open("../" + "0" * 36, label, {}).path()
    parts = folder.relative_to(root).parts
    assert folder.resolve().is_relative_to(root)
    assert ".." not in parts
    assert all(len(part.encode()) <= 100 for part in parts)


def test_a_label_stays_readable(tracker: LocalFileTracker, tmp_path: Path) -> None:
    workspace = FolderWorkspaces(tmp_path, tracker).open("0123456789abcdef", "m=a,p=b|c/7-1", {})
    assert workspace.path() == tmp_path / "m=a,p=b|c" / "7-1-456789abcdef"


def test_removing_goes_up_to_the_root_and_not_through_links(
    tracker: LocalFileTracker, tmp_path: Path
) -> None:
    write(tmp_path / "outside", {"kept": b"1"})
    workspaces = FolderWorkspaces(tmp_path / "forks", tracker)
    workspace = workspaces.open("e-1", "a/b/c", {})
    (workspace.path() / "link").symlink_to(tmp_path / "outside")
    workspace.remove()
    workspaces.sweep()
    assert not list((tmp_path / "forks").iterdir())
    folder = workspace.path()
    folder.rmdir()
    folder.symlink_to(tmp_path / "outside")
    workspace.remove()
    assert (tmp_path / "outside/kept").exists()


def test_sweeping_beside_another_batch(tracker: LocalFileTracker, tmp_path: Path) -> None:
    """Two batches of one project: one puts folders aside while the other one sweeps."""
    workspaces = FolderWorkspaces(tmp_path / "forks", tracker)
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            workspaces.sweep()

    def make_and_remove(number: int) -> None:
        for attempt in range(100):
            workspace = workspaces.open(f"e-{number}-{attempt}", "case", {})
            folder = workspace.path()
            write(folder, {"a": b"1", "b/c": b"2"})
            workspace.remove()
            assert not folder.exists()

    with ThreadPoolExecutor(4) as pool:
        sweepers = [pool.submit(sweep) for _ in range(2)]
        try:
            list(pool.map(make_and_remove, range(2)))
        finally:
            stop.set()
        assert [sweeper.result() for sweeper in sweepers] == [None, None]
    workspaces.sweep()
    assert not list((tmp_path / "forks").iterdir())


def test_a_folder_put_aside_while_a_sweep_is_at_its_end_is_swept(
    tracker: LocalFileTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspaces = FolderWorkspaces(tmp_path / "forks", tracker)
    early, late = (workspaces.open(name, "case", {}) for name in ("e-1", "e-2"))
    early.path()
    folder = late.path()
    early.remove()
    remove_entry, raced = os.rmdir, []

    def rmdir(path: str, **where: int) -> None:
        if not raced and Path(path).name.startswith(".removed-"):
            raced.append(path)
            folder.rename(Path(path) / "late")
        remove_entry(path, **where)

    monkeypatch.setattr(os, "rmdir", rmdir)
    workspaces.sweep()
    assert raced
    assert not list((tmp_path / "forks").iterdir())


def test_mementos_carry_what_the_store_holds(tracker: LocalFileTracker) -> None:
    assert tracker.store_texts([("a/b", b"text")]) == (
        FileMemento(path="a/b", blob_id=BlobId(hashlib.sha256(b"text").hexdigest()), size=4),
    )


@pytest.mark.parametrize("count", [3, 2_000])
def test_restored_files_are_older_than_their_snapshot_by_more_than_a_tick(
    tracker: LocalFileTracker, tmp_path: Path, count: int
) -> None:
    """Else a write in the same tick would not show; kernels differ in what a tick is."""
    files = {m.path: m for m in tracker.store_texts((f"{n}", b"%d" % n) for n in range(count))}
    restored = tracker.restore(files, tmp_path / "w")
    for path, known in restored.stats.items():
        found = (tmp_path / "w" / path).lstat()
        assert (found.st_mtime_ns, found.st_ctime_ns) == (known.mtime_ns, known.ctime_ns)
        assert restored.taken_ns - found.st_mtime_ns > 20_000_000
    assert restored.taken_ns <= time.time_ns()
