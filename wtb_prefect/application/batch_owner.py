"""A batch belongs to one live process at a time."""

from __future__ import annotations

from collections.abc import Callable

from wtb_prefect.application.at_work import is_at_work
from wtb_prefect.domain.batch_test import BatchTest, Owner
from wtb_prefect.errors import BatchBusyError

IsAlive = Callable[[Owner], bool]
"""Whether the process that owns a batch still lives."""


def refuse_if_owned(batch: BatchTest, is_alive: IsAlive) -> None:
    """Raises `BatchBusyError` if a live process has the batch, this one included: two calls at once
    would run the same executions twice."""
    owner = batch.owner
    if owner is not None and is_at_work(owner, batch.batch_id, is_alive):
        raise BatchBusyError(
            f"batch {batch.batch_id} is in use by process {owner.pid} on {owner.host}; "
            "wait for it to end, or stop it"
        )
