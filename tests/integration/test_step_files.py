"""Files of tasks that end beside one another: none is lost, and none goes back in time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from wtb_prefect.application.step_files import StepFiles
from wtb_prefect.domain.file_processing import FileCommit, FileSnapshot
from wtb_prefect.infrastructure.file_tracking.blob_store import LocalBlobStore
from wtb_prefect.infrastructure.file_tracking.tracker import LocalFileTracker
from wtb_prefect.infrastructure.system_clock import SystemClock
from wtb_prefect.infrastructure.workspace.folders import FolderWorkspaces


class OutOfTurn(StepFiles):
    """The first look comes back only when the second one has."""

    async def _looked(self) -> tuple[int, FileSnapshot | None]:
        first = self._looks == 0
        found = await super()._looked()
        if first:
            while self._newest == 0:
                await asyncio.sleep(0)
        return found


def files_of(tmp_path: Path, kind: type[StepFiles] = StepFiles) -> tuple[StepFiles, Path]:
    tracker = LocalFileTracker(LocalBlobStore(tmp_path / "blobs"))
    workspace = FolderWorkspaces(tmp_path / "w", tracker).open("e-1", "case", {})
    files = kind(
        execution_id="e-1",
        workspace=workspace,
        tree={},
        commit_id=None,
        tracker=tracker,
        clock=SystemClock(),
    )
    return files, workspace.path()


def sizes(commit: FileCommit | None) -> dict[str, int]:
    assert commit is not None
    return {memento.path: memento.size for memento in commit.changed}


def test_a_second_look_before_the_record_keeps_what_the_first_one_found(tmp_path: Path) -> None:
    files, folder = files_of(tmp_path)

    async def run() -> FileCommit | None:
        (folder / "a").write_text("1")
        await files.save()
        (folder / "b").write_text("22")
        await files.save()
        return files.take()

    assert sizes(asyncio.run(run())) == {"a": 1, "b": 2}
    assert files.take() is None


def test_a_look_that_comes_back_late_does_not_go_back_in_time(tmp_path: Path) -> None:
    files, folder = files_of(tmp_path, OutOfTurn)
    (folder / "a").write_text("")  # its node is in the middle of writing

    async def run() -> FileCommit | None:
        early = asyncio.create_task(files.save())
        while files._looks == 0 or files._looking.locked():
            await asyncio.sleep(0)
        (folder / "a").write_text("all of it")
        await files.save()
        await early
        return files.take()

    assert sizes(asyncio.run(run())) == {"a": 9}


def test_what_is_back_to_what_was_recorded_is_no_change(tmp_path: Path) -> None:
    files, folder = files_of(tmp_path)

    async def run() -> FileCommit | None:
        (folder / "a").write_text("1")
        await files.save()
        (folder / "a").unlink()
        await files.save()
        return files.take()

    assert asyncio.run(run()) is None
    assert files.commit_id is None
