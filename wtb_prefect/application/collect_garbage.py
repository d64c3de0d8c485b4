"""Contents of files that nothing names any more, and file commits that nothing uses.

Why nothing that is used, or about to be used, can go:

- *Marked* is every blob that a ledger of the store names: through the commits in use and all their
  ancestors, checkpoints' stores, kept results of nodes, and cases. All ledgers are read before
  anything is removed; one that cannot be read ends it.
- *A blob whose commit is still to be recorded* was put, which sets its time, less than the grace
  period before its row is committed. `cutoff` is the start less the grace period. If the last put
  was before `cutoff`, its row was committed before the start, so the marks, which are read after
  the start, have it; if it was later, the store refuses to remove the blob.
- *A blob that is put again while this runs*, because it is there already, gets the time of now. The
  store looks at the time and removes in one step, so whoever puts it either comes before and keeps
  it, or comes after, finds it missing and stores it anew (`BlobStore.remove`).
- *A blob named anew without being put* is named by a row copied from another one (a fork names its
  parent's store, a replay a kept result). The marks are read again just before the removal. A fork
  whose parent was deleted meanwhile breaks a foreign key and is never committed; kept results are
  deleted by no use case.
- *Commits* are looked for and removed in one write transaction, before any blob goes. Their rows
  are written in the transaction of the rows that use them: none of them is about to be used.

Ended anywhere, this leaves no commit without its blobs, only blobs without a commit, for the next
time. A grace period of zero holds none of this beside a process that is writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from wtb_prefect.domain.batch_test import StoredCase
from wtb_prefect.domain.file_processing import StoredBlob
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.errors import InvalidInputError, LedgerError

GRACE_HOURS = 24.0

# A text of 64 bytes in msgpack, as ids of blobs and commits stand in a case. Reading them so needs
# no class of the project, and takes a text of the user's that looks like an id for one: it stays.
_ID_IN_MSGPACK = re.compile(rb"\xd9\x40([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageStores:
    """A blob store with every ledger that names its blobs."""

    ledgers: Sequence[OpenUnitOfWork]
    blobs: BlobStore
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageReport:
    """What went, or would go (`dry_run`), and what stays: named, or younger than the grace period.

    `leftovers` are what writers that ended early have left.
    """

    dry_run: bool
    grace_hours: float
    commits: int
    blobs: int
    blob_bytes: int
    leftovers: int
    leftover_bytes: int
    named: int
    named_bytes: int
    young: int
    young_bytes: int


@dataclass(frozen=True, slots=True)
class _Marks:
    """What a ledger names, and which of its commits nothing uses."""

    blobs: set[BlobId]
    unused: list[str]


def collect_garbage(
    stores: GarbageStores, grace_hours: float = GRACE_HOURS, *, dry_run: bool = False
) -> GarbageReport:
    """Removes what nothing names; with `dry_run` says only what that would be.

    Raises:
        InvalidInputError: a negative grace period.
        LedgerError: a ledger cannot be read; nothing was removed.
        FileTrackingError: a blob cannot be removed; the next time goes on from there.
    """
    if not grace_hours >= 0:
        raise InvalidInputError(f"the grace period is {grace_hours} hours; it has to be 0 or more")
    cutoff = stores.clock.now() - timedelta(hours=grace_hours)
    marks = [_read_marks(open_uow, cutoff) for open_uow in stores.ledgers]
    commits = sum(len(found.unused) for found in marks)
    named, garbage, young = _sorted_out(stores.blobs, _named(marks), cutoff)
    if not dry_run:
        commits = sum(_remove_commits(open_uow, cutoff, stores) for open_uow in stores.ledgers)
        again = _named(_read_marks(open_uow, cutoff) for open_uow in stores.ledgers)
        garbage = [
            blob
            for blob in garbage
            if blob.blob_id not in again and stores.blobs.remove(blob.blob_id, cutoff)
        ]
    left = stores.blobs.leftovers(cutoff, remove=not dry_run)
    return GarbageReport(
        dry_run=dry_run,
        grace_hours=grace_hours,
        commits=commits,
        blobs=len(garbage),
        blob_bytes=_size(garbage),
        leftovers=left.count,
        leftover_bytes=left.size,
        named=len(named),
        named_bytes=_size(named),
        young=len(young),
        young_bytes=_size(young),
    )


def find_garbage(stores: GarbageStores, cutoff: datetime) -> tuple[list[StoredBlob], list[str]]:
    """The contents and the commits that nothing names, and that were put before the cutoff.

    Raises as `collect_garbage`.
    """
    marks = [_read_marks(open_uow, cutoff) for open_uow in stores.ledgers]
    _, garbage, _ = _sorted_out(stores.blobs, _named(marks), cutoff)
    return garbage, [name for found in marks for name in found.unused]


def _named(marks: Iterable[_Marks]) -> set[BlobId]:
    return {blob for found in marks for blob in found.blobs}


def _sorted_out(
    blobs: BlobStore, named: set[BlobId], cutoff: datetime
) -> tuple[list[StoredBlob], list[StoredBlob], list[StoredBlob]]:
    """The blobs of a store: those that are named, garbage, and what may be about to be named."""
    kept: list[StoredBlob] = []
    garbage: list[StoredBlob] = []
    young: list[StoredBlob] = []
    for blob in blobs.stored():
        if blob.blob_id in named:
            kept.append(blob)
        elif blob.put_at < cutoff:
            garbage.append(blob)
        else:
            young.append(blob)
    return kept, garbage, young


def _read_marks(open_uow: OpenUnitOfWork, cutoff: datetime) -> _Marks:
    with open_uow() as uow:
        return _marks(uow, cutoff)


def _marks(uow: UnitOfWork, cutoff: datetime) -> _Marks:
    in_cases = _named_by_cases(uow)
    commits = uow.file_commits.parents()
    young = {commit for commit, (_, made_at) in commits.items() if made_at >= cutoff}
    used = _with_ancestors({*uow.file_commits.in_use(), *in_cases, *young}, commits)
    blobs = uow.file_commits.contents(sorted(used))
    blobs |= uow.checkpoint_files.store_ids() | uow.node_results.blobs()
    blobs |= {BlobId(name) for name in in_cases}
    return _Marks(blobs, [commit for commit in commits if commit not in used])


def _with_ancestors(
    roots: set[str], commits: Mapping[str, tuple[str | None, datetime]]
) -> set[str]:
    """The commits of whole chains. What is in no row of its own is no commit."""
    found: set[str] = set()
    for root in roots:
        current: str | None = root
        while current is not None and current in commits and current not in found:
            found.add(current)
            current = commits[current][0]
    return found


def _named_by_cases(uow: UnitOfWork) -> set[str]:
    """Ids of the files of all cases, and of the commits their executions start with."""
    return {
        name
        for batch in uow.batch_tests.list()
        for case in uow.cases.list(batch.batch_id)
        for name in ids_in_case(case)
    }


def ids_in_case(case: StoredCase) -> set[str]:
    """All that could be an id of a blob or commit in a case.

    Raises:
        LedgerError: written in a way that this version does not know.
    """
    if case.encoding != "msgpack":
        raise LedgerError(
            f"case {case.case_id!r} of batch {case.batch_id} is encoded as {case.encoding!r}, of "
            "which only msgpack can be searched for files: nothing was removed"
        )
    return {found.decode() for found in _ID_IN_MSGPACK.findall(case.payload)}


def _remove_commits(open_uow: OpenUnitOfWork, cutoff: datetime, stores: GarbageStores) -> int:
    """Removes unused commits with the claims about them; answers how many."""
    with open_uow(write=True) as uow:
        unused = _marks(uow, cutoff).unused
        if unused:
            uow.file_commits.delete_many(unused)
            uow.outbox.delete_about(unused)
            uow.audit_log.append(
                AuditEntry(
                    at=stores.clock.now(),
                    actor="collect_garbage",
                    action="commits.collected",
                    subject="file_commits",
                    details={"commits": len(unused)},
                )
            )
            uow.commit()
    return len(unused)


def _size(blobs: Iterable[StoredBlob]) -> int:
    return sum(blob.size for blob in blobs)
