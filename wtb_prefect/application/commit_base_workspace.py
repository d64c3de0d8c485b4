"""The files every execution starts with, committed once per batch."""

from __future__ import annotations

from wtb_prefect.application.session import Session
from wtb_prefect.domain.file_processing import FileCommit, FileSnapshot, commit_id_of


def commit_base_workspace(session: Session) -> FileCommit | None:
    """The base workspace as a commit (its blobs stored, its row not written); None without one.

    Editing the folder while a batch runs changes nothing for the batch: executions start from the
    commit, never from the folder.
    """
    root = session.project.locations.workspace
    if root is None:
        return None
    changed, _ = session.tracker.snapshot(root, FileSnapshot()).changes_since({})
    return FileCommit(
        commit_id=commit_id_of(None, changed, ()),
        parent_id=None,
        execution_id=None,
        changed=changed,
        removed=(),
        created_at=session.clock.now(),
    )
