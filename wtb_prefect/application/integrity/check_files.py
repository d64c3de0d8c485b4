"""The ledger against the contents of files, both ways."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from wtb_prefect.application.collect_garbage import GRACE_HOURS, find_garbage
from wtb_prefect.application.integrity.audit_stores import AuditStores
from wtb_prefect.application.integrity.check_checkpoints import DELETE
from wtb_prefect.application.integrity.check_ledger import A_PERSON, How, issue
from wtb_prefect.application.integrity.ledger_view import LedgerView
from wtb_prefect.domain.file_processing import commit_id_of
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.integrity import IntegrityIssue, IssueKind, RepairAction, Severity
from wtb_prefect.errors import FileTrackingError

RESTORE: How = (RepairAction.RESTORE_COPY, Severity.CRITICAL)
_CHUNK = 1 << 20


def check_files(view: LedgerView, stores: AuditStores, *, deep: bool) -> Iterator[IntegrityIssue]:
    """Every commit and all contents that anything names; and what nothing names."""
    for commit in view.commits.values():
        if commit.parent_id is not None and commit.parent_id not in view.commits:
            detail = f"commit {commit.commit_id} comes after it"
            yield issue(IssueKind.DANGLING_REFERENCE, commit.parent_id, detail)
        made_of = commit_id_of(commit.parent_id, commit.changed, commit.removed)
        if made_of != commit.commit_id:
            detail = "its files are not those that its id is made of"
            yield issue(IssueKind.STATE_MISMATCH, commit.commit_id, detail)
    copies = Copies(stores)
    for blob_id, (size, use) in _named(view, stores).items():
        found = _wrong(blob_id, size, stores, deep=deep)
        if found is not None:
            kind, why = found
            how = A_PERSON if copies.find(blob_id, size) is None else RESTORE
            about = {"size": "" if size is None else str(size)}
            yield issue(kind, blob_id, f"{use}: {why}", how, about)
    cutoff = stores.clock.now() - timedelta(hours=GRACE_HOURS)
    garbage, commits = find_garbage(stores.garbage, cutoff)
    for blob in garbage:
        detail = f"{blob.size} bytes that nothing names"
        yield issue(IssueKind.ORPHAN_BLOB, blob.blob_id, detail, DELETE)
    for name in commits:
        yield issue(IssueKind.ORPHAN_COMMIT, name, "a commit that nothing names", DELETE)


def _named(view: LedgerView, stores: AuditStores) -> dict[BlobId, tuple[int | None, str]]:
    """Blob -> its size, where it is recorded, and what it is needed for."""
    found: dict[BlobId, tuple[int | None, str]] = {}
    for commit in view.commits.values():
        for memento in commit.changed:
            made_by = f"execution {commit.execution_id}" if commit.execution_id else "the start"
            use = f"file {memento.path!r} of commit {commit.commit_id} ({made_by})"
            found.setdefault(memento.blob_id, (memento.size, use))
    with stores.open_uow() as uow:
        for blob_id in uow.checkpoint_files.store_ids():
            found.setdefault(blob_id, (None, "the content of a LangGraph store"))
        for blob_id in uow.node_results.blobs():
            found.setdefault(blob_id, (None, "a file of a kept node result"))
    return found


def _wrong(
    blob_id: BlobId, size: int | None, stores: AuditStores, *, deep: bool
) -> tuple[IssueKind, str] | None:
    there = stores.blobs.size(blob_id)
    if there is None:
        return IssueKind.MISSING_BLOB, "its content is missing"
    if size is not None and there != size:
        return IssueKind.DAMAGED_BLOB, f"its content has {there} bytes, recorded were {size}"
    if deep:
        try:
            stores.blobs.check(blob_id)
        except FileTrackingError as exc:
            return IssueKind.DAMAGED_BLOB, str(exc)
    return None


class Copies:
    """Files in base and kept workspaces, looked through only if something is lost."""

    def __init__(self, stores: AuditStores) -> None:
        self._folders = stores.copies
        self._by_size: Mapping[int, list[Path]] | None = None

    def find(self, blob_id: str, size: int | None) -> Path | None:
        """A file with just this content, if there is one."""
        if self._by_size is None:
            self._by_size = _files_by_size(self._folders)
        sizes = self._by_size if size is None else [size]
        candidates = (path for known in sizes for path in self._by_size.get(known, ()))
        return next((path for path in candidates if _hash(path) == blob_id), None)


def _files_by_size(folders: Sequence[Path]) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = {}
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for path in (Path(parent, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    found.setdefault(path.stat().st_size, []).append(path)
    return found


def _hash(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            hasher.update(data)
    return hasher.hexdigest()
