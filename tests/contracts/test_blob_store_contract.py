"""What every blob store must do."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from wtb_prefect.domain.file_processing import Leftovers
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import (
    LocalBlobStore,
    fsspec_blob_store,
)
from wtb_prefect.infrastructure.file_tracking.fsspec_blob_store import FsspecBlobStore

ABSENT = BlobId("0" * 64)
BIG = 3 * (1 << 20) + 7
NOW_ISH = timedelta(seconds=2)
LATER = datetime(9000, 1, 1, tzinfo=UTC)


def sha256(data: bytes) -> BlobId:
    return BlobId(hashlib.sha256(data).hexdigest())


class BlobStoreContract:
    """Subclass it and give a `store` fixture."""

    @pytest.mark.parametrize("data", [b"", b"x", b"\0" * 4096, os.urandom(BIG)])
    def test_gives_back_what_was_put_under_its_hash(
        self, store: BlobStore, tmp_path: Path, data: bytes
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(data)
        assert store.put_file(source) == (sha256(data), len(data))
        assert store.put_bytes(data) == sha256(data)
        store.flush()
        assert store.exists(sha256(data))
        assert store.read(sha256(data)) == data
        store.check(sha256(data))
        assert store.size(sha256(data)) == len(data)
        store.copy_to(sha256(data), tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == data

    def test_a_missing_blob_is_named(self, store: BlobStore, tmp_path: Path) -> None:
        assert not store.exists(ABSENT)
        assert store.size(ABSENT) is None
        with pytest.raises(FileTrackingError, match=ABSENT):
            store.read(ABSENT)
        with pytest.raises(FileTrackingError, match=ABSENT):
            store.check(ABSENT)
        with pytest.raises(FileTrackingError, match=ABSENT):
            store.copy_to(ABSENT, tmp_path / "target")
        assert not (tmp_path / "target").exists()

    def test_copying_never_replaces_a_file(self, store: BlobStore, tmp_path: Path) -> None:
        blob = store.put_bytes(b"new")
        store.flush()
        target = tmp_path / "target"
        target.write_bytes(b"old")
        with pytest.raises(FileTrackingError, match="target"):
            store.copy_to(blob, target)
        assert target.read_bytes() == b"old"

    def test_a_source_that_cannot_be_read_is_named(self, store: BlobStore, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("file")
        for name in ("gone", "fifo", "link", "."):
            with pytest.raises(FileTrackingError, match=str(tmp_path)):
                store.put_file(tmp_path / name)

    @pytest.mark.parametrize("name", ["", "..", "../../../../etc/passwd", "A" * 64, "0" * 63])
    def test_what_is_no_hash_is_refused(self, store: BlobStore, name: str) -> None:
        with pytest.raises(FileTrackingError):
            store.read(BlobId(name))

    def test_each_thread_finds_its_blobs_after_its_own_flush(self, store: BlobStore) -> None:
        start = threading.Barrier(4)

        def work(worker: int) -> None:
            start.wait()
            for number in range(30):
                own = store.put_bytes(b"own %d %d" % (worker, number))
                shared = store.put_bytes(b"shared %d" % number)
                store.flush()
                assert store.exists(own)
                assert store.exists(shared)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))

    def test_flush_covers_what_another_thread_put(self, store: BlobStore) -> None:
        with ThreadPoolExecutor(1) as pool:
            blob = pool.submit(store.put_bytes, b"put elsewhere").result()
        store.flush()
        assert store.read(blob) == b"put elsewhere"

    def test_lists_what_is_flushed(self, store: BlobStore) -> None:
        began = datetime.now(UTC) - timedelta(seconds=2)  # of a coarse clock
        data = [b"", b"one", b"two" * 1000]
        blobs = [store.put_bytes(one) for one in data]
        store.flush()
        found = {blob.blob_id: blob for blob in store.stored()}
        assert {blob: found[blob].size for blob in blobs} == {sha256(one): len(one) for one in data}
        assert len(found) == len(blobs)
        assert all(began <= b.put_at <= datetime.now(UTC) + NOW_ISH for b in found.values())

    def test_removes_only_what_was_not_put_since(self, store: BlobStore) -> None:
        blob = store.put_bytes(b"data")
        store.flush()
        assert not store.remove(blob, datetime.now(UTC) - timedelta(hours=1))
        assert store.read(blob) == b"data"
        assert not store.remove(ABSENT, LATER)
        while store.remove(blob, LATER):  # one without locks puts it aside first
            pass
        assert not store.exists(blob)
        assert not list(store.stored())
        with pytest.raises(FileTrackingError, match=blob):
            store.read(blob)

    def test_what_was_removed_can_be_put_again(self, store: BlobStore) -> None:
        for _ in range(2):
            blob = store.put_bytes(b"data")
            store.flush()
            assert store.read(blob) == b"data"
            while store.remove(blob, LATER):
                pass

    def test_putting_again_makes_a_blob_young(self, store: BlobStore) -> None:
        """Also what is put, and not flushed yet, when the clean-up comes."""
        blob = store.put_bytes(b"data")
        store.flush()
        time.sleep(0.05)
        between = datetime.now(UTC)
        time.sleep(0.05)
        assert store.put_bytes(b"data") == blob
        store.remove(blob, between)
        store.flush()
        assert store.read(blob) == b"data"
        assert not store.remove(blob, between)

    def test_nothing_is_left_over_by_writers_that_flushed(self, store: BlobStore) -> None:
        store.put_bytes(b"data")
        store.flush()
        assert store.leftovers(LATER, remove=True) == Leftovers()
        assert list(store.stored())

    def test_knows_the_ledgers_it_was_told_of(self, store: BlobStore) -> None:
        assert store.ledgers() == {}
        for url in ("sqlite:////a/wtb.db", "sqlite:////b/wtb.db", "sqlite:////a/wtb.db"):
            store.register_ledger(url)
        assert sorted(store.ledgers().values()) == ["sqlite:////a/wtb.db", "sqlite:////b/wtb.db"]
        assert not list(store.stored())
        assert store.leftovers(LATER, remove=False) == Leftovers()


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return LocalBlobStore(tmp_path / "store")


class TestFsspecBlobStoreInMemory(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return FsspecBlobStore(f"memory://{uuid.uuid4()}/prefix")


class TestFsspecBlobStoreOnFiles(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return FsspecBlobStore(f"file://{tmp_path}/bucket")


class TestFsspecBlobStoreOnS3(BlobStoreContract):
    """A server in another process, with another clock for all we know."""

    @pytest.fixture
    def store(self, s3_url: str) -> BlobStore:
        return FsspecBlobStore(s3_url)


class TestFsspecBlobStoreWithWholePuts(BlobStoreContract):
    """As on an object store: nothing is written beside its place."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
        monkeypatch.setattr(fsspec_blob_store, "_WHOLE_PUTS", {"memory"})
        return FsspecBlobStore(f"memory://{uuid.uuid4()}")


class BlobStoreAgainstADict(RuleBasedStateMachine):
    """Any sequence of calls, and of new starts, agrees with a dict."""

    blobs: Bundle[BlobId] = Bundle("blobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.store = self.opened()
        self.stored: dict[BlobId, bytes] = {}
        self.pending: dict[BlobId, bytes] = {}

    def opened(self) -> BlobStore:
        """The store, as another process would open it."""
        return LocalBlobStore(self.root / "store")

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(target=blobs, data=st.binary(max_size=40))
    def put_bytes(self, data: bytes) -> BlobId:
        blob = self.store.put_bytes(data)
        assert blob == sha256(data)
        self.pending[blob] = data
        return blob

    @rule(target=blobs, data=st.binary(max_size=40))
    def put_file(self, data: bytes) -> BlobId:
        source = self.root / "source"
        source.write_bytes(data)
        blob, size = self.store.put_file(source)
        assert (blob, size) == (sha256(data), len(data))
        self.pending[blob] = data
        return blob

    @rule()
    def flush(self) -> None:
        self.store.flush()
        self.stored |= self.pending
        self.pending.clear()

    @rule()
    def start_anew_without_flushing(self) -> None:
        self.store = self.opened()
        self.pending.clear()

    @precondition(lambda self: not self.pending)
    @rule(blob=blobs)
    def remove(self, blob: BlobId) -> None:
        had = self.stored.pop(blob, None)
        assert self.store.remove(blob, LATER) == (had is not None)
        while self.store.remove(blob, LATER):
            pass

    @rule(blob=blobs)
    def put_aside_at_most(self, blob: BlobId) -> None:
        """Told of a time before it was put, the store keeps it; put again meanwhile or not."""
        assert not self.store.remove(blob, datetime(2000, 1, 1, tzinfo=UTC))

    @rule()
    def clean_up(self) -> None:
        if not self.pending:
            self.store.leftovers(LATER, remove=True)

    @precondition(lambda self: not self.pending)
    @rule(blob=blobs)
    def read(self, blob: BlobId) -> None:
        if blob in self.stored:
            assert self.store.read(blob) == self.stored[blob]
        else:
            with pytest.raises(FileTrackingError, match=blob):
                self.store.read(blob)

    @rule(blob=blobs)
    def copy(self, blob: BlobId) -> None:
        if blob in self.stored:
            target = self.root / "target"
            self.store.copy_to(blob, target)
            assert target.read_bytes() == self.stored[blob]
            target.unlink()

    @invariant()
    def holds_what_was_flushed_and_nothing_else(self) -> None:
        assert all(self.store.exists(blob) for blob in self.stored)
        found = [(blob.blob_id, blob.size) for blob in self.store.stored()]
        assert sorted(found) == sorted((blob, len(data)) for blob, data in self.stored.items())


class FsspecInMemoryAgainstADict(BlobStoreAgainstADict):
    def opened(self) -> BlobStore:
        return FsspecBlobStore(f"memory://{self.root}")


class FsspecOnFilesAgainstADict(BlobStoreAgainstADict):
    def opened(self) -> BlobStore:
        return FsspecBlobStore(f"file://{self.root}/bucket")


_few = settings(max_examples=10, stateful_step_count=60, deadline=None)
TestBlobStoreAgainstADict = BlobStoreAgainstADict.TestCase
TestFsspecInMemoryAgainstADict = FsspecInMemoryAgainstADict.TestCase
TestFsspecOnFilesAgainstADict = FsspecOnFilesAgainstADict.TestCase
for _case in (
    TestBlobStoreAgainstADict,
    TestFsspecInMemoryAgainstADict,
    TestFsspecOnFilesAgainstADict,
):
    _case.settings = _few
