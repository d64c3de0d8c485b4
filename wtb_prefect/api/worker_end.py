"""The end of a worker whose node hangs: it leaves its answer in the ledger, and then itself.

Nothing can stop a sync node in a thread. What the chunk had to do is done and recorded, so only the
process is in the way: the next chunk gets a new one.
"""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from prefect.context import TaskRunContext

from wtb_prefect.application.session import Session
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.infrastructure.node_threads import GRACE_SECONDS, nodes_left_behind

_ACTION = "worker.replaced"


def leave_answer(
    answer: dict[str, Any], session: Session, answer_id: str | None
) -> tuple[str, ...]:
    """Keeps a chunk's answer for the driver if nodes still run here; gives their names.

    A worker that ends itself takes the answer that it returns along with it.
    """
    nodes = nodes_left_behind(grace=GRACE_SECONDS)
    context = TaskRunContext.get()
    subject = answer_id or (str(context.task_run.id) if context else None)
    if nodes and subject is not None:
        with session.open_uow(write=True) as uow:
            uow.audit_log.append(
                AuditEntry(
                    at=session.clock.now(),
                    actor="segment_task",
                    action=_ACTION,
                    subject=subject,
                    details={"nodes": list(nodes), "answer": answer},
                )
            )
            uow.commit()
    return nodes


def left_answer(task_run_id: UUID, open_uow: OpenUnitOfWork) -> dict[str, Any] | None:
    """What a worker that ended itself has left of a task run; None if it did not."""
    with open_uow() as uow:
        entries = uow.audit_log.list(str(task_run_id))
    answers = (dict(e.details["answer"]) for e in entries if e.action == _ACTION)
    return next(answers, None)


def end_if_a_node_hangs() -> None:
    """Ends this process at once, if need be. Call it when all is said, logs and events too."""
    if nodes_left_behind():
        os._exit(0)
