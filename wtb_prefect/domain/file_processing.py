"""Files as content: blobs named by their hash, commits that say what a workspace held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from wtb_prefect.domain.identifiers import BlobId, CheckpointId, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMemento:
    """One file of a commit: its path (posix, relative), blob, size in bytes and mode bits.

    A symbolic link is kept as a link: `is_symlink` is set and the blob holds the target's text.
    """

    path: str
    blob_id: BlobId
    size: int
    mode: int = 0o644
    is_symlink: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCommit:
    """What changed against the parent commit. The tree is the chain's sum (see `apply`)."""

    commit_id: str
    parent_id: str | None
    execution_id: str | None
    changed: tuple[FileMemento, ...]
    removed: tuple[str, ...]
    created_at: datetime

    def apply(self, tree: Mapping[str, FileMemento]) -> dict[str, FileMemento]:
        """The tree after this commit, given the parent's tree."""
        result = {path: memento for path, memento in tree.items() if path not in self.removed}
        result.update({memento.path: memento for memento in self.changed})
        return result


def commit_id_of(
    parent_id: str | None, changed: tuple[FileMemento, ...], removed: tuple[str, ...]
) -> str:
    """SHA-256 of the parent and the change: the same files in the same order give the same id."""
    rows = [[m.path, m.blob_id, m.size, m.mode, m.is_symlink] for m in changed]
    return digest("file-commit", parent_id, rows, list(removed))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFileLink:
    """Which files belong to which checkpoint.

    `pending` is False for the files as the checkpoint was saved, True for the files after tasks of
    the next super-step finished while their writes are still pending at that checkpoint. Of several
    pending links of one checkpoint the newest (highest `sequence`) holds.

    Links of a subgraph's checkpoints carry its `namespace` and are pending for the top graph.
    `answers` counts the answers to `interrupt()` used up to here since the start. `exact`: every
    value of the checkpoint comes back from it as it was, types included. `store_id` is the blob
    with the content of the execution's LangGraph store, if it has one.
    """

    execution_id: str
    checkpoint_id: CheckpointId
    commit_id: str | None
    pending: bool
    sequence: int
    step: int
    created_at: datetime
    parent_checkpoint_id: CheckpointId | None = None
    nodes: tuple[str, ...] = ()
    namespace: str = ""
    answers: int = 0
    exact: bool = True
    store_id: BlobId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """A blob as its store lists it; `put_at` is when it was last put, by anybody."""

    blob_id: BlobId
    size: int
    put_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What writers that ended early have left in a store."""

    count: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class StatSignature:
    """What `stat` says of a file; equal signatures mean the content was not touched."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSnapshot:
    """A workspace as last seen: mementos by path and the stat of each when it was hashed.

    `taken_ns` is the wall clock (ns) when the snapshot began: a file whose mtime is not clearly
    older may have changed since without its signature showing it, and is hashed again.
    """

    files: Mapping[str, FileMemento] = field(default_factory=dict)
    stats: Mapping[str, StatSignature] = field(default_factory=dict)
    taken_ns: int = 0

    def changes_since(
        self, older: Mapping[str, FileMemento]
    ) -> tuple[tuple[FileMemento, ...], tuple[str, ...]]:
        """(changed or new mementos, removed paths) against an older tree, each sorted by path."""
        changed = tuple(m for p, m in sorted(self.files.items()) if older.get(p) != m)
        removed = tuple(sorted(path for path in older if path not in self.files))
        return changed, removed
