"""Executions and batches as Prefect events, told after the ledger has them."""

from __future__ import annotations

from uuid import UUID

from prefect.events import emit_event

from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.identifiers import stable_id


def announce_execution(execution: Execution) -> None:
    """`wtb.execution.<status>`; forks are `wtb.execution.forked`.

    The event's id is made from its content: telling it again (a resumed batch) is no second event.
    """
    verb = "forked" if execution.split_nodes else str(execution.status)
    emit_event(
        event=f"wtb.execution.{verb}",
        resource={
            "prefect.resource.id": f"wtb.execution.{execution.execution_id}",
            "prefect.resource.name": execution.execution_id
            if execution.case_id is None
            else f"{execution.case_id}-{execution.repeat}",
        },
        related=[
            {"prefect.resource.id": f"wtb.batch.{batch_id}", "prefect.resource.role": "wtb-batch"}
            for batch_id in (execution.batch_id,)
            if batch_id is not None  # a single run has none
        ],
        payload={
            "case": execution.case_id,
            "repeat": execution.repeat,
            "choices": dict(execution.choices),
            "status": str(execution.status),
            "node_executions": execution.node_executions,
            "cache_hits": execution.cache_hits,
            "duration": execution.duration,
            "error": str(execution.error) if execution.error else None,
        },
        id=UUID(stable_id("event", execution.execution_id, verb)),
    )


def announce_batch(batch_id: str, project: str, verb: str, payload: dict[str, object]) -> None:
    """`wtb.batch.<verb>`: started, finished, interrupted, failed."""
    emit_event(
        event=f"wtb.batch.{verb}",
        resource={
            "prefect.resource.id": f"wtb.batch.{batch_id}",
            "prefect.resource.name": project,
        },
        payload=payload,
    )
