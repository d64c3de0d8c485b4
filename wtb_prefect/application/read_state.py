"""Where the values of a checkpoint are, which a fork holds a copy of and pruning takes away."""

from __future__ import annotations

from wtb_prefect.application.stores import Stores
from wtb_prefect.domain.checkpoint import Checkpoint
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.errors import CheckpointError, InvalidInputError, NotFoundError


def holder_of(execution_id: str, point: Checkpoint, stores: Stores) -> str:
    """The execution on whose thread a checkpoint is that lies behind an execution.

    Raises:
        NotFoundError: no such execution.
        InvalidInputError: the checkpoint was pruned.
        CheckpointError: it is missing for no reason that the ledger knows.
    """
    with stores.open_uow() as uow:
        line = uow.executions.lineage(execution_id)
    if not line:
        raise NotFoundError("execution", execution_id)
    for execution in reversed(line):
        thread = thread_id(execution.execution_id)
        if stores.checkpoints.exists(thread, point.checkpoint_id):
            return execution.execution_id
    if any(execution.is_pruned for execution in line):
        raise InvalidInputError(
            f"checkpoint {point.checkpoint_id} of execution {execution_id} was pruned: its values "
            "are gone; those at the end of the execution are kept"
        )
    raise CheckpointError(f"checkpoint {point.checkpoint_id} is missing from the store")
