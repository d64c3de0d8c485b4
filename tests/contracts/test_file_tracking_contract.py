"""What every file tracker and workspace store must do."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.domain.interfaces.workspace import WorkspaceStore
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking import (
    LocalBlobStore,
    LocalFileTracker,
)
from wtb_prefect.infrastructure.workspace import FolderWorkspaces
from wtb_prefect.infrastructure.workspace.overlays import unmount, why_no_overlays

ABSENT = BlobId("0" * 64)


def sha256(data: bytes) -> BlobId:
    return BlobId(hashlib.sha256(data).hexdigest())


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
_trees = st.dictionaries(
    st.lists(_names, min_size=1, max_size=3).map("/".join), st.binary(max_size=30), max_size=6
).filter(
    lambda tree: (
        not any(other.startswith(f"{path}/") for path in tree for other in tree if other != path)
    )
)


class FileTrackerContract:
    """Subclass it and give a `tracker` fixture."""

    def test_a_missing_folder_is_an_empty_one(self, tracker: FileTracker, tmp_path: Path) -> None:
        assert not tracker.snapshot(tmp_path / "missing", FileSnapshot()).files

    def test_says_what_changed_and_what_went(self, tracker: FileTracker, tmp_path: Path) -> None:
        write(tmp_path / "w", {"same": b"1", "edited": b"1", "deleted": b"1", "a/b/deep": b"1"})
        before = tracker.snapshot(tmp_path / "w", FileSnapshot())
        assert sorted(before.files) == ["a/b/deep", "deleted", "edited", "same"]
        write(tmp_path / "w", {"edited": b"2", "new": b"3"})
        (tmp_path / "w/deleted").unlink()
        after = tracker.snapshot(tmp_path / "w", before)
        changed, removed = after.changes_since(before.files)
        assert [(m.path, m.blob_id, m.size) for m in changed] == [
            ("edited", sha256(b"2"), 1),
            ("new", sha256(b"3"), 1),
        ]
        assert removed == ("deleted",)

    def test_an_untouched_folder_gives_an_equal_snapshot(
        self, tracker: FileTracker, tmp_path: Path
    ) -> None:
        write(tmp_path / "w", {"a": b"1", "b/c": b"2"})
        time.sleep(0.05)
        first = tracker.snapshot(tmp_path / "w", FileSnapshot())
        assert tracker.snapshot(tmp_path / "w", first) == first

    def test_restores_contents_modes_and_links(self, tracker: FileTracker, tmp_path: Path) -> None:
        source = tmp_path / "w"
        write(source, {"script": b"#!", "a/b": b"2"})
        (source / "script").chmod(0o755)
        (source / "a/b").chmod(0o400)
        (source / "to-file").symlink_to("a/b")
        (source / "to-folder").symlink_to("a")
        (source / "dangling").symlink_to("/no/such/place")
        taken = tracker.snapshot(source, FileSnapshot())
        assert taken.files["to-folder"].is_symlink
        assert taken.files["script"].mode == 0o755
        tracker.restore(taken.files, tmp_path / "copy")
        assert contents(tmp_path / "copy") == contents(source)
        assert tracker.snapshot(tmp_path / "copy", FileSnapshot()).files == taken.files
        assert (tmp_path / "copy/dangling").readlink() == Path("/no/such/place")

    @given(tree=_trees)
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    def test_any_tree_comes_back_as_it_was(
        self, tracker: FileTracker, tree: dict[str, bytes]
    ) -> None:
        with tempfile.TemporaryDirectory() as name:
            mementos = {memento.path: memento for memento in tracker.store_texts(tree.items())}
            restored = tracker.restore(mementos, Path(name) / "w")
            assert contents(Path(name) / "w") == tree
            assert tracker.snapshot(Path(name) / "w", FileSnapshot()).files == mementos
            assert tracker.snapshot(Path(name) / "w", restored) == restored

    def test_a_restored_folder_is_followed_from_there(
        self, tracker: FileTracker, tmp_path: Path
    ) -> None:
        files = {m.path: m for m in tracker.store_texts([("a", b"1"), ("b", b"1")])}
        restored = tracker.restore(files, tmp_path / "w")
        assert tracker.snapshot(tmp_path / "w", restored) == restored
        write(tmp_path / "w", {"a": b"2"})
        (tmp_path / "w/b").chmod(0o755)
        changed, _ = tracker.snapshot(tmp_path / "w", restored).changes_since(files)
        assert [(m.path, m.mode) for m in changed] == [("a", 0o644), ("b", 0o755)]

    def test_a_folder_in_use_is_not_replaced(self, tracker: FileTracker, tmp_path: Path) -> None:
        write(tmp_path / "w", {"mine": b"1"})
        files = {m.path: m for m in tracker.store_texts([("a", b"1")])}
        with pytest.raises(FileTrackingError, match="w"):
            tracker.restore(files, tmp_path / "w")
        assert contents(tmp_path / "w") == {"mine": b"1"}
        assert [path.name for path in tmp_path.iterdir() if path.name != "store"] == ["w"]

    @given(before=_trees, after=_trees)
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    def test_any_change_is_made_and_not_hashed_again(
        self, tracker: FileTracker, before: dict[str, bytes], after: dict[str, bytes]
    ) -> None:
        """Folders become files and files folders; the snapshot is the one a scan would give."""
        with tempfile.TemporaryDirectory() as name:
            root = Path(name) / "w"
            old = {m.path: m for m in tracker.store_texts(before.items())}
            new = {m.path: m for m in tracker.store_texts(after.items())}
            restored = tracker.restore(old, root)
            changed, removed = FileSnapshot(files=new).changes_since(old)
            applied = tracker.apply(changed, removed, root, restored)
            assert contents(root) == after
            assert applied.files == new
            assert tracker.snapshot(root, applied) == applied

    def test_a_change_brings_modes_and_links(self, tracker: FileTracker, tmp_path: Path) -> None:
        write(tmp_path / "made", {"a": b"1", "kept": b"1"})
        (tmp_path / "made/a").chmod(0o750)
        (tmp_path / "made/link").symlink_to("/no/such/place")
        made = tracker.snapshot(tmp_path / "made", FileSnapshot()).files
        old = {m.path: m for m in tracker.store_texts([("kept", b"1"), ("link/file", b"1")])}
        restored = tracker.restore(old, tmp_path / "w")
        changed, removed = FileSnapshot(files=made).changes_since(old)
        applied = tracker.apply(changed, removed, tmp_path / "w", restored)
        assert tracker.snapshot(tmp_path / "w", FileSnapshot()).files == made
        assert tracker.snapshot(tmp_path / "w", applied) == applied
        assert (tmp_path / "w/link").readlink() == Path("/no/such/place")

    def test_a_write_after_a_change_shows(self, tracker: FileTracker, tmp_path: Path) -> None:
        [memento] = tracker.store_texts([("a", b"1")])
        applied = tracker.apply([memento], (), tmp_path / "w", tracker.restore({}, tmp_path / "w"))
        write(tmp_path / "w", {"a": b"2"})
        changed, _ = tracker.snapshot(tmp_path / "w", applied).changes_since(applied.files)
        assert [m.blob_id for m in changed] == [sha256(b"2")]

    def test_a_change_never_follows_a_link(self, tracker: FileTracker, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        write(outside, {"file": b"mine"})
        start = tracker.restore({}, tmp_path / "w")
        (tmp_path / "w/out").symlink_to(outside)
        [memento] = tracker.store_texts([("out/file", b"theirs")])
        with pytest.raises(FileTrackingError, match="in the way"):
            tracker.apply([memento], (), tmp_path / "w", start)
        tracker.apply([], ["out/file"], tmp_path / "w", start)
        assert contents(outside) == {"file": b"mine"}

    def test_a_change_whose_blob_is_missing_is_refused(
        self, tracker: FileTracker, tmp_path: Path
    ) -> None:
        start = tracker.restore({}, tmp_path / "w")
        with pytest.raises(FileTrackingError, match=ABSENT):
            tracker.apply(
                [FileMemento(path="a", blob_id=ABSENT, size=1)], (), tmp_path / "w", start
            )
        assert not list((tmp_path / "w").iterdir())

    def test_an_empty_folder_is_filled(self, tracker: FileTracker, tmp_path: Path) -> None:
        (tmp_path / "w").mkdir()
        files = {m.path: m for m in tracker.store_texts([("a", b"1")])}
        tracker.restore(files, tmp_path / "w")
        assert contents(tmp_path / "w") == {"a": b"1"}

    @given(before=_trees, after=_trees)
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    def test_a_folder_is_made_to_hold_any_files_whatever_is_known_of_it(
        self, tracker: FileTracker, before: dict[str, bytes], after: dict[str, bytes]
    ) -> None:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name) / "w"
            write(root, before)
            new = {m.path: m for m in tracker.store_texts(after.items())}
            known = tracker.snapshot(root, FileSnapshot())
            updated = tracker.update(new, root, known)
            assert contents(root) == after
            assert updated.files == new
            assert tracker.snapshot(root, updated).files == new
            again = {m.path: m for m in tracker.store_texts(before.items())}
            tracker.update(again, root, FileSnapshot())
            assert contents(root) == before

    def test_an_update_brings_back_modes_links_and_deleted_files(
        self, tracker: FileTracker, tmp_path: Path
    ) -> None:
        root = tmp_path / "w"
        write(root, {"script": b"#!", "deleted": b"1", "same": b"1", "was/deep": b"1"})
        (root / "script").chmod(0o750)
        (root / "link").symlink_to("/no/such/place")
        time.sleep(0.05)
        taken = tracker.snapshot(root, FileSnapshot())
        untouched = (root / "same").lstat()
        (root / "script").chmod(0o644)
        (root / "deleted").unlink()
        (root / "link").unlink()
        write(root, {"link/now/a/folder": b"", "later/file": b"", "was/later": b""})
        (root / "was/deep").unlink()
        (root / "empty").mkdir()
        updated = tracker.update(taken.files, root, tracker.snapshot(root, taken))
        assert tracker.snapshot(root, FileSnapshot()).files == taken.files
        assert updated.files == taken.files
        assert (root / "link").readlink() == Path("/no/such/place")
        assert sorted(p.name for p in root.iterdir()) == [
            *("deleted", "empty", "link", "same", "script", "was")
        ]
        assert (root / "same").lstat() == untouched

    def test_a_write_after_an_update_shows(self, tracker: FileTracker, tmp_path: Path) -> None:
        files = {m.path: m for m in tracker.store_texts([("a", b"1"), ("b", b"1")])}
        for number in range(30):
            write(tmp_path / "w", {"a": b"0"})
            updated = tracker.update(files, tmp_path / "w", FileSnapshot())
            write(tmp_path / "w", {"a": b"2"})
            (tmp_path / "w/b").chmod(0o600 + number % 64)
            changed, _ = tracker.snapshot(tmp_path / "w", updated).changes_since(files)
            assert [m.path for m in changed] == ["a", "b"]

    def test_an_update_sees_an_edit_of_the_same_size_in_the_same_tick(
        self, tracker: FileTracker, tmp_path: Path
    ) -> None:
        write(tmp_path / "w", {"a": b"0000"})
        taken = tracker.snapshot(tmp_path / "w", FileSnapshot())
        for number in range(1, 100):
            (tmp_path / "w/a").write_bytes(b"%04d" % number)
            taken = tracker.update(taken.files, tmp_path / "w", taken)
            assert contents(tmp_path / "w") == {"a": b"0000"}

    def test_an_update_makes_a_folder_that_is_gone(
        self, tracker: FileTracker, tmp_path: Path
    ) -> None:
        files = {m.path: m for m in tracker.store_texts([("a/b", b"1")])}
        tracker.update(files, tmp_path / "w", FileSnapshot())
        assert contents(tmp_path / "w") == {"a/b": b"1"}

    def test_an_update_never_follows_a_link(self, tracker: FileTracker, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        write(outside, {"file": b"mine", "other": b"mine"})
        (tmp_path / "w").mkdir()
        (tmp_path / "w/out").symlink_to(outside)
        (tmp_path / "w/file").symlink_to(outside / "other")
        files = {m.path: m for m in tracker.store_texts([("out/file", b"1"), ("file", b"1")])}
        tracker.update(files, tmp_path / "w", FileSnapshot())
        assert contents(outside) == {"file": b"mine", "other": b"mine"}
        assert contents(tmp_path / "w") == {"out/file": b"1", "file": b"1"}
        assert not (tmp_path / "w/out").is_symlink()

    def test_an_update_with_a_missing_blob_changes_nothing(
        self, tracker: FileTracker, tmp_path: Path
    ) -> None:
        write(tmp_path / "w", {"a": b"mine", "b/c": b"mine"})
        files = {m.path: m for m in tracker.store_texts([("a", b"1"), ("z", b"1")])}
        files["lost"] = FileMemento(path="lost", blob_id=ABSENT, size=1)
        with pytest.raises(FileTrackingError, match=f"'lost'.*{ABSENT}"):
            tracker.update(files, tmp_path / "w", FileSnapshot())
        assert contents(tmp_path / "w") == {"a": b"mine", "b/c": b"mine"}
        assert sorted(p.name for p in tmp_path.iterdir() if p.name != "store") == ["w"]

    @pytest.mark.parametrize("path", ["../f", "/etc/f", "a/../../f", "a//f", "", "..", "a\0b"])
    def test_an_update_refuses_paths_that_could_leave_the_folder(
        self, tracker: FileTracker, tmp_path: Path, path: str
    ) -> None:
        write(tmp_path / "w", {"mine": b"1"})
        [good] = tracker.store_texts([("good", b"1")])
        bad = FileMemento(path=path, blob_id=good.blob_id, size=1)
        with pytest.raises(FileTrackingError):
            tracker.update({"good": good, path: bad}, tmp_path / "w", FileSnapshot())
        assert contents(tmp_path / "w") == {"mine": b"1"}

    def test_an_update_names_what_is_no_file(self, tracker: FileTracker, tmp_path: Path) -> None:
        write(tmp_path / "w", {"mine": b"1"})
        os.mkfifo(tmp_path / "w/queue")
        [memento] = tracker.store_texts([("good", b"1")])
        with pytest.raises(FileTrackingError, match="queue"):
            tracker.update({"good": memento}, tmp_path / "w", FileSnapshot())
        assert contents(tmp_path / "w") == {"mine": b"1"}

    @pytest.mark.parametrize("deep", [False, True])
    def test_verifying_names_file_and_blob(self, tracker: FileTracker, deep: bool) -> None:
        files = tracker.store_texts([("a", b"1"), ("same", b"1")])
        tracker.verify(files, deep=deep)
        lost = FileMemento(path="lost", blob_id=ABSENT, size=1)
        with pytest.raises(FileTrackingError, match=f"'lost'.*{ABSENT}"):
            tracker.verify([*files, lost], deep=deep)
        wrong = replace(files[0], path="wrong", size=7)
        with pytest.raises(FileTrackingError, match=r"'wrong'.*has 1 bytes, recorded were 7"):
            tracker.verify([wrong], deep=deep)


class TestLocalFileTracker(FileTrackerContract):
    @pytest.fixture
    def tracker(self, tmp_path: Path) -> FileTracker:
        return LocalFileTracker(LocalBlobStore(tmp_path / "store"))


class WorkspaceStoreContract:
    """Subclass it and give the fixtures `workspaces` and `start` (a file `a` holding `1`)."""

    def test_nothing_is_made_before_it_is_asked_for(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        workspace = workspaces.open("e-1", "combination/case-1", start)
        assert (workspace.is_made, workspace.snapshot()) == (False, None)
        folder = workspace.path()
        assert workspace.is_made
        assert contents(folder) == {"a": b"1"}
        assert workspace.path() == folder

    def test_a_snapshot_follows_the_folder(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        workspace = workspaces.open("e-1", "case", start)
        write(workspace.path(), {"b": b"2"})
        (workspace.path() / "a").unlink()
        taken = workspace.snapshot()
        assert taken is not None
        assert {path: m.blob_id for path, m in taken.files.items()} == {"b": sha256(b"2")}

    def test_executions_with_one_label_have_folders_of_their_own(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        first, second = (workspaces.open(f"e-{n}", "same/label", start).path() for n in (1, 2))
        write(first, {"a": b"changed", "b": b"new"})
        assert contents(second) == {"a": b"1"}

    def test_an_earlier_attempt_is_replaced(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        write(workspaces.open("e-1", "case", start).path(), {"a": b"changed", "left/over": b"1"})
        assert contents(workspaces.open("e-1", "case", start).path()) == {"a": b"1"}

    def test_an_earlier_attempt_stays_if_it_cannot_be_replaced(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        folder = workspaces.open("e-1", "combination/case", start).path()
        write(folder, {"a": b"changed", "left/over": b"1"})
        start["lost"] = FileMemento(path="lost", blob_id=ABSENT, size=1)
        with pytest.raises(FileTrackingError, match=ABSENT):
            workspaces.open("e-1", "combination/case", start).path()
        assert contents(folder) == {"a": b"changed", "left/over": b"1"}
        assert [each.name for each in folder.parent.iterdir()] == [folder.name]

    def test_a_folder_that_is_there_is_put_back_in_place(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        again = workspaces.open("e-1", "case", start)
        assert again.put_back() is None
        folder = workspaces.open("e-1", "case", start).path()
        inode = folder.stat().st_ino
        write(folder, {"a": b"changed", "left/over": b"1"})
        taken = again.put_back()
        assert taken is not None
        assert taken.files == start
        assert (contents(folder), folder.stat().st_ino) == ({"a": b"1"}, inode)

    def test_a_folder_with_a_fifo_in_it_is_put_back(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        folder = workspaces.open("e-1", "case", start).path()
        os.mkfifo(folder / "queue")
        assert workspaces.open("e-1", "case", start).put_back() is not None
        assert contents(folder) == {"a": b"1"}
        assert not (folder / "queue").exists()

    @pytest.mark.parametrize("made", [False, True])
    def test_a_replayed_change_is_there_made_or_not(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento], made: bool
    ) -> None:
        workspace = workspaces.open("e-1", "case", start)
        if made:
            workspace.path()
        b = FileMemento(path="b", blob_id=start["a"].blob_id, size=1)
        workspace.replay([b], ["a"], {"b": b})
        assert workspace.is_made is made
        assert contents(workspace.path()) == {"b": b"1"}
        taken = workspace.snapshot()
        assert taken is not None
        assert taken.files == {"b": b}

    def test_a_removed_workspace_is_gone(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        workspace = workspaces.open("e-1", "combination/case", start)
        other = workspaces.open("e-2", "combination/case", start).path()
        folder = workspace.path()
        workspace.remove()
        workspace.remove()
        assert not folder.exists()
        assert contents(other) == {"a": b"1"}

    def test_a_folder_the_workflow_deleted_holds_nothing(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        workspace = workspaces.open("e-1", "case", start)
        self.delete(workspace.path())
        taken = workspace.snapshot()
        assert taken is not None
        assert not taken.files

    def delete(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def test_threads_that_ask_at_once_get_one_folder(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        workspace = workspaces.open("e-1", "case", start)
        gate = threading.Barrier(8)

        def ask(number: int) -> Path:
            gate.wait()
            folder = workspace.path()
            write(folder, {f"by-{number}": b""})
            return folder

        with ThreadPoolExecutor(8) as pool:
            folders = set(pool.map(ask, range(8)))
        assert len(folders) == 1
        assert len(contents(folders.pop())) == 9

    def test_how_it_was_made_is_known_once_it_is_made(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        workspace = workspaces.open("e-1", "case", start)
        assert workspace.strategy is None
        workspace.path()
        assert workspace.strategy in ("copy", "reflink", "overlay")

    def test_what_a_live_process_made_or_has_kept_is_no_orphan(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        made, kept = (workspaces.open(f"e-{n}", "case", start) for n in (1, 2))
        made.path()
        kept.path()
        kept.keep()
        assert workspaces.clean_orphans(grace_seconds=0) == []
        assert contents(made.path()) == contents(kept.path()) == {"a": b"1"}

    def test_making_and_removing_neighbours_at_once(
        self, workspaces: WorkspaceStore, start: dict[str, FileMemento]
    ) -> None:
        def make_and_remove(number: int) -> None:
            for _ in range(25):
                workspace = workspaces.open(f"e-{number}", "one/shared/parent/case", start)
                assert contents(workspace.path()) == {"a": b"1"}
                workspace.remove()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(make_and_remove, range(4)))


class TestFolderWorkspaces(WorkspaceStoreContract):
    @pytest.fixture
    def tracker(self, tmp_path: Path) -> FileTracker:
        return LocalFileTracker(LocalBlobStore(tmp_path / "store"))

    @pytest.fixture
    def workspaces(self, tmp_path: Path, tracker: FileTracker) -> Iterator[WorkspaceStore]:
        yield FolderWorkspaces(tmp_path / "workspaces", tracker)
        assert not list(tmp_path.rglob(".restoring-*"))

    @pytest.fixture
    def start(self, tracker: FileTracker) -> dict[str, FileMemento]:
        return {memento.path: memento for memento in tracker.store_texts([("a", b"1")])}


class TestOverlayWorkspaces(TestFolderWorkspaces):
    @pytest.fixture
    def workspaces(self, tmp_path: Path, tracker: FileTracker) -> Iterator[WorkspaceStore]:
        if (reason := why_no_overlays(tmp_path)) is not None:
            pytest.skip(reason)
        yield FolderWorkspaces(tmp_path / "workspaces", tracker, overlay=True)
        for start in (tmp_path / "workspaces-overlays/starts").glob("*"):
            assert contents(start) in ({"a": b"1"}, {"b": b"1"})
        for folder in (tmp_path / "workspaces").rglob("*-e-*"):
            while os.path.ismount(folder):
                unmount(folder)

    def delete(self, folder: Path) -> None:
        """All that a workflow can delete of a mount."""
        with pytest.raises(OSError, match="busy"):
            shutil.rmtree(folder)
