"""Stopping at the first failure: a mark in the ledger, which every process of a batch can see."""

from __future__ import annotations

from dataclasses import replace

from wtb_prefect.application.session import Session
from wtb_prefect.domain.batch_test import BatchStatus
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork


def stop_batch(uow: UnitOfWork, batch_id: str) -> None:
    """Marks a running batch: nothing new of it is started."""
    batch = uow.batch_tests.get(batch_id)
    if batch is not None and batch.status is BatchStatus.RUNNING:
        uow.batch_tests.save(replace(batch, status=BatchStatus.INTERRUPTED))


def is_stopped(batch_id: str, session: Session) -> bool:
    """Whether a failure has stopped the batch."""
    with session.open_uow() as uow:
        batch = uow.batch_tests.get(batch_id)
    return batch is not None and batch.status is BatchStatus.INTERRUPTED
