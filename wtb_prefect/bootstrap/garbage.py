"""A project's blob store with every ledger that names its blobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from wtb_prefect.application.collect_garbage import GarbageStores
from wtb_prefect.bootstrap.blobs import open_blobs
from wtb_prefect.bootstrap.ledger import open_ledger
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.system_clock import SystemClock


@contextmanager
def open_garbage(where: ProjectLocations) -> Iterator[GarbageStores]:
    """Opens them all; closes what it opened.

    Raises:
        LedgerError: one cannot be opened, or is not there: what it names is not known.
        FileTrackingError: the blob store cannot be opened.
    """
    blobs = open_blobs(where)
    with ExitStack() as stack:
        ledgers: list[OpenUnitOfWork] = []
        for note, url in blobs.ledgers().items():
            found = stack.enter_context(open_ledger(url))
            if found is None:
                raise LedgerError(
                    f"the ledger {url}, which uses the same blobs, is not there: bring it back, "
                    f"or remove {note} if it is gone for good"
                )
            ledgers.append(found)
        yield GarbageStores(ledgers=ledgers, blobs=blobs, clock=SystemClock())
