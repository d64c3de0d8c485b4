"""Files of executions."""

from __future__ import annotations

from dataclasses import dataclass

from wtb_prefect.domain.events.base import DomainEvent
from wtb_prefect.domain.file_processing import FileCommit


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvent(DomainEvent):
    """Of one file commit. `execution_id` is None for the files of base workspace and cases."""

    execution_id: str | None
    commit_id: str

    @property
    def subject(self) -> str:
        return self.commit_id

    @property
    def aggregate_id(self) -> str:
        return self.execution_id or self.commit_id


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesCommitted(FileEvent):
    """Recorded: so many files changed (or new), and removed, since the parent commit."""

    name = "file.committed"
    of_steps = True

    parent_id: str | None
    changed: int
    removed: int


def files_committed(commit: FileCommit) -> FilesCommitted:
    """The event of a recorded commit."""
    return FilesCommitted(
        at=commit.created_at,
        execution_id=commit.execution_id,
        commit_id=commit.commit_id,
        parent_id=commit.parent_id,
        changed=len(commit.changed),
        removed=len(commit.removed),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesVerified(FileEvent):
    """Every blob of the commit was read and has the hash it is named by."""

    name = "file.verified"

    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesRestored(FileEvent):
    """The folder holds exactly the files of the commit again."""

    name = "file.restored"

    files: int
    path: str
