"""Contents of files behind a URL: a whole project, and faults of the other side."""

from __future__ import annotations

import builtins
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from line_project import CASES, MATRIX, project, run
from s3fs import S3FileSystem

from tests.object_store import BUCKET, object_store
from wtb_prefect import TestBench
from wtb_prefect.application.delete_batch import delete_batch
from wtb_prefect.bootstrap.blobs import open_blobs
from wtb_prefect.bootstrap.files import open_tracker
from wtb_prefect.bootstrap.stores import open_stores
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.errors import FileTrackingError, InvalidInputError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore
from wtb_prefect.infrastructure.file_tracking.fsspec_blob_store import FsspecBlobStore
from wtb_prefect.infrastructure.processes import is_alive, this_process


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4()}/prefix"


@pytest.fixture(params=["memory", "s3"])
def any_url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue("url" if request.param == "memory" else "s3_url")
    return found


def test_a_project_keeps_its_contents_there(tmp_path: Path, any_url: str) -> None:
    """Run, read back, extended, deleted, collected: in two steps, without locks over there."""
    url = any_url
    cases = [{**case, "files": {"own.txt": f"of {case['id']}"}} for case in CASES]
    with TestBench(project(tmp_path, blob_url=url)) as bench:
        first = run(bench, cases=cases[:2], batch_id="b")
        assert first.node_executions > 0
        assert run(bench, cases=cases[:2], batch_id="b").node_executions == 0
        (cell, *_) = first.cells
        files = bench.files(str(cell.execution_id))
        assert bench.session.tracker.contents(files["own.txt"].blob_id).startswith(b"of c")
        open_tracker(bench.project.locations).restore(files, tmp_path / "restored")
        assert (tmp_path / "restored" / "own.txt").read_text().startswith("of c")
        assert not (tmp_path / "out" / "blobs").exists()
        assert bench.collect_garbage(grace=0).blobs == 0
        with open_stores(bench.project.locations) as stores:
            delete_batch("b", this_process(), is_alive, stores)
        if url.startswith("s3"):
            time.sleep(2)  # it tells whole seconds: what was written in this one is not old yet
        said = bench.collect_garbage(grace=0, dry_run=True).blobs
        assert [bench.collect_garbage(grace=0).blobs for _ in range(3)] == [said, said, 0]
        assert run(bench, cases=cases[:2], batch_id="b").node_executions == first.node_executions


def test_an_object_store_that_dies_and_comes_back_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch ends with one line that names it; then every content is reported as missing, and the
    batch runs again."""
    with object_store(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        S3FileSystem.clear_instance_cache()  # which remembers the server of the other tests
        url = f"s3://{BUCKET}/prefix"
        with TestBench(project(tmp_path, blob_url=url)) as bench:
            done = run(bench, cases=CASES[:1], batch_id="b")
            contents = {
                memento.blob_id
                for cell in done.cells
                for memento in bench.files(str(cell.execution_id)).values()
            }
            server.stop()
            with pytest.raises(FileTrackingError, match=f"at '{url}': .*endpoint") as said:
                bench.batch(matrix=MATRIX, cases=CASES[1:2], runner="inline", batch_id="c")
            assert "\n" not in str(said.value)
            server.start()
            report = bench.check_integrity()
            assert contents <= {issue.subject for issue in report.issues}
            assert not report.healthy
            assert run(bench, cases=CASES[1:2], batch_id="c").status == "completed"


@pytest.mark.parametrize("place", ["memory", "file"])
def test_what_is_put_aside_is_read_until_it_is_deleted(
    tmp_path: Path, url: str, place: str
) -> None:
    """And is deleted only if it was put aside before the time that is told."""
    store = FsspecBlobStore(url if place == "memory" else f"file://{tmp_path}/bucket")
    blob = store.put_bytes(b"data")
    store.flush()
    began = datetime.now(UTC)
    later = began + timedelta(hours=1)
    assert store.remove(blob, later)
    assert store.exists(blob)
    assert store.read(blob) == b"data"
    store.copy_to(blob, tmp_path / "copy")
    (listed,) = store.stored()
    assert (listed.blob_id, listed.size) == (blob, 4)
    assert began <= listed.put_at <= datetime.now(UTC)
    assert not store.remove(blob, began)
    assert store.read(blob) == b"data"
    store.put_bytes(b"data")  # whoever puts it does not count on what was put aside
    store.flush()
    assert store.leftovers(later, remove=False).count == 1
    assert store.leftovers(later, remove=True).count == 1
    assert store.read(blob) == b"data"
    assert [store.remove(blob, later) for _ in range(3)] == [True, True, False]
    assert not store.exists(blob)


def test_where_contents_are_travels_with_the_other_places(tmp_path: Path, url: str) -> None:
    where = project(tmp_path, blob_url=url).locations
    assert ProjectLocations.from_json(where.to_json()) == where
    assert isinstance(open_blobs(where), FsspecBlobStore)
    on_disk = project(tmp_path, blob_url=f"file://{tmp_path}/blobs").locations
    assert isinstance(open_blobs(on_disk), LocalBlobStore)  # which syncs what it writes
    assert (tmp_path / "blobs" / "objects").is_dir()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("bucket/prefix", "no URL"),
        ("s3://", "no URL"),
        ("s3://key:secret@bucket/prefix", "credentials belong in the environment"),
        ("nosuch://bucket", "nosuch"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(tmp_path: Path, asked: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as refused:
        TestBench(project(tmp_path, blob_url=asked)).plan(MATRIX, CASES)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_library_is_named(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_fsspec(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("fsspec"):
            raise ImportError("No module named 'fsspec'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    with pytest.raises(InvalidInputError, match=r"pip install 'wtb-prefect\[objectstore\]'"):
        FsspecBlobStore(url)


@pytest.mark.parametrize("data", [b"other", b"", b"data!"])
def test_damage_over_there_is_found_on_read(tmp_path: Path, url: str, data: bytes) -> None:
    store = FsspecBlobStore(url)
    blob = store.put_bytes(b"data?")
    store.flush()
    (path,) = MemoryFileSystem().find(f"{url}/objects")
    MemoryFileSystem().pipe_file(path, data)
    with pytest.raises(FileTrackingError, match=f"{blob} is damaged"):
        store.read(blob)
    with pytest.raises(FileTrackingError, match=f"{blob} is damaged"):
        store.copy_to(blob, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    if len(data) != 5:  # one that cannot be right is replaced by a good one
        store.put_bytes(b"data?")
        store.flush()
        assert store.read(blob) == b"data?"


def test_what_was_not_uploaded_has_to_be_put_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever flushed, whoever put: nobody takes it for durable."""
    store = FsspecBlobStore(url)
    blob = store.put_bytes(b"data")

    class RefusedError(Exception):
        """Object stores' libraries have errors of their own."""

    def refuse(*_: object, **__: object) -> None:
        raise RefusedError("access denied")

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(MemoryFileSystem, "put_file", refuse)
        with pytest.raises(FileTrackingError, match="access denied"):
            pool.submit(store.flush).result()
    with pytest.raises(FileTrackingError, match="was lost"):
        store.flush()
    assert not store.exists(blob)
    store.put_bytes(b"data")
    store.flush()
    assert store.read(blob) == b"data"
