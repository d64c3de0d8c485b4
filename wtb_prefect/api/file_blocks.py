"""Prefect blocks of files: where their contents are kept, and where workspaces are made."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.blocks.core import Block
from pydantic import Field

from wtb_prefect.errors import InvalidInputError

# Prefect imports block modules at every start: what is behind a block is imported when it is used.
if TYPE_CHECKING:
    from wtb_prefect.domain.file_processing import FileMemento
    from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker


class WtbFileTracker(Block):
    """Where contents of files are kept, each once, under its SHA-256; usable in any flow.

    A commit of a folder is a JSON value: it can be a task's result or another flow's parameter.

    Example:
        ```python
        from wtb_prefect import WtbFileTracker

        tracker = WtbFileTracker.load("BLOCK_NAME")
        commit = tracker.commit("data")
        tracker.restore(commit, "data")
        ```
    """

    _block_type_name = "WTB File Tracker"
    _block_type_slug = "wtb-file-tracker"
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"  # type: ignore[assignment]  # as Prefect's own blocks declare it
    _description = "Where contents of files are kept, each once, under its SHA-256."

    blob_folder: str = Field(
        default=".wtb/outputs/blobs",
        description="The folder of the contents; relative to that of the process.",
    )

    def commit(self, folder: str | Path) -> dict[str, Any]:
        """Stores what a folder holds, durably, and says what that is.

        Raises:
            InvalidInputError: it is no folder.
            FileTrackingError: it cannot be read, or holds what is neither file, folder nor link.
        """
        from wtb_prefect.domain.file_processing import (  # noqa: PLC0415 - as above
            FileSnapshot,
            commit_id_of,
        )

        root = Path(folder)
        if not root.is_dir():
            raise InvalidInputError(f"cannot commit {str(folder)!r}: it is not a folder")
        changed, _ = self._tracker()[1].snapshot(root, FileSnapshot()).changes_since({})
        files = [
            {
                "path": m.path,
                "blob_id": m.blob_id,
                "size": m.size,
                "mode": m.mode,
                "is_symlink": m.is_symlink,
            }
            for m in changed
        ]
        return {"commit_id": commit_id_of(None, changed, ()), "files": files}

    def restore(self, commit: Mapping[str, Any], folder: str | Path) -> None:
        """Makes a folder hold exactly the files of a commit; what it held besides is removed.

        Raises:
            InvalidInputError: it is no commit.
            FileTrackingError: a content is missing or damaged; the folder is as it was then.
        """
        from wtb_prefect.domain.file_processing import FileSnapshot  # noqa: PLC0415 - as above

        self._tracker()[1].update(files_of(commit), Path(folder), FileSnapshot())

    def _tracker(self) -> tuple[LocalBlobStore, LocalFileTracker]:
        from wtb_prefect.infrastructure.file_tracking import (  # noqa: PLC0415 - as above
            LocalBlobStore,
            LocalFileTracker,
        )

        blobs = LocalBlobStore(Path(self.blob_folder))
        return blobs, LocalFileTracker(blobs)


class WtbWorkspace(Block):
    """Where workspaces are made: folders of their own, each with the files of a commit.

    Example:
        ```python
        from wtb_prefect import WtbWorkspace

        workspace = WtbWorkspace.load("BLOCK_NAME")
        commit = workspace.file_tracker.commit("data")
        folder = workspace.fork(commit, "experiment/first")
        ```
    """

    _block_type_name = "WTB Workspace"
    _block_type_slug = "wtb-workspace"
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"  # type: ignore[assignment]  # as Prefect's own blocks declare it
    _description = "Where workspaces are made: folders of their own, with the files of a commit."

    folder: str = Field(
        default=".wtb/outputs/workspaces",
        description="The folder of the workspaces; relative to that of the process.",
    )
    file_tracker: WtbFileTracker = Field(
        default_factory=WtbFileTracker,
        description="Where the contents of the files come from.",
    )

    def fork(self, commit: Mapping[str, Any], name: str) -> Path:
        """A new folder with the files of a commit; what is written there shows nowhere else.

        It stays until you delete it. Two forks of one name have folders of their own.

        Raises:
            InvalidInputError: it is no commit.
            FileTrackingError: a content is missing or damaged; nothing is left of the folder then.
        """
        from wtb_prefect.infrastructure.workspace.folders import (  # noqa: PLC0415 - as above
            FolderWorkspaces,
        )

        files = files_of(commit)
        blobs, tracker = self.file_tracker._tracker()
        store = FolderWorkspaces(Path(self.folder), tracker, blobs.strategy)
        workspace = store.open(uuid.uuid4().hex, name, files)
        made = workspace.path()
        workspace.keep()
        return made


def files_of(commit: Mapping[str, Any]) -> dict[str, FileMemento]:
    """The files of a commit as `WtbFileTracker.commit` gave it.

    Raises:
        InvalidInputError: it is no commit, or was changed since.
    """
    from wtb_prefect.domain.file_processing import FileMemento, commit_id_of  # noqa: PLC0415
    from wtb_prefect.domain.identifiers import BlobId  # noqa: PLC0415

    try:
        files = tuple(
            FileMemento(
                path=str(row["path"]),
                blob_id=BlobId(str(row["blob_id"])),
                size=int(row["size"]),
                mode=int(row["mode"]),
                is_symlink=bool(row["is_symlink"]),
            )
            for row in commit["files"]
        )
        commit_id = commit["commit_id"]
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidInputError(
            f"not a commit of files, as WtbFileTracker.commit gives it: {exc!r}"
        ) from exc
    if commit_id != commit_id_of(None, files, ()):
        raise InvalidInputError(f"commit {commit_id!r} was changed: its files have another id")
    return {memento.path: memento for memento in files}
