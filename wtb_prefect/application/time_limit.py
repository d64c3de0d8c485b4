"""How long a cell may take: its execution and the shared prefix before it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.session import Session
from wtb_prefect.domain.execution import Execution, NodeFailure
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.workflow_engine import Advance, Stop, StopKind

FAILURE = "TimeLimitExceeded"
"""The type of the failure, as results show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When an execution has to have ended, by a clock; `limit` None: never."""

    limit: float | None
    at: float
    clock: Clock

    @property
    def left(self) -> float | None:
        """Seconds left; None: any number."""
        return None if self.limit is None else self.at - self.clock.elapsed()

    def allows(self, seconds: float) -> bool:
        """Whether there is time for a wait."""
        left = self.left
        return left is None or seconds < left


def deadline_of(execution: Execution, limit: float | None, session: Session) -> Deadline:
    """The deadline of an execution that goes on now: what it and its ancestors took is gone."""
    if limit is None:
        return Deadline(limit=None, at=0.0, clock=session.clock)
    left = limit - execution.duration - _prefix_seconds(execution, session)
    return Deadline(limit=limit, at=session.clock.elapsed() + left, clock=session.clock)


def _prefix_seconds(execution: Execution, session: Session) -> float:
    if execution.inherited is not None:  # of a donor only a part came before
        return execution.inherited.duration
    if execution.lineage is None:
        return 0.0
    with session.open_uow() as uow:
        parent = uow.executions.get(execution.lineage.parent_id)
    return 0.0 if parent is None else parent.duration + _prefix_seconds(parent, session)


async def advance_until(
    deadline: Deadline, request: Advance, recorder: StepRecorder, session: Session
) -> Stop:
    """The engine's `advance`, or a failure that names the nodes that were running at the end."""
    left = deadline.left
    if left is not None and left <= 0:
        return _over(_failure(deadline, (), "its shared prefix took all of it"))
    timeout = asyncio.timeout(left)
    try:
        async with timeout:
            stop = await session.engine.advance(request, recorder)
    except TimeoutError:
        if not timeout.expired():
            raise
    else:
        if not timeout.expired():
            return stop

    def failure_of(nodes: tuple[str, ...]) -> NodeFailure:
        hung = session.engine.still_running(request.workspace)
        return _failure(deadline, nodes, _what(nodes, hung))

    return _over(recorder.cut_off(failure_of))


def _what(nodes: tuple[str, ...], hung: tuple[str, ...]) -> str:
    if not nodes:
        return "between two nodes"
    names = ", ".join(map(repr, nodes))
    running = f"node{'s' if len(nodes) > 1 else ''} {names} running"
    return f"{running}, in a thread that cannot be stopped" if hung else running


def _failure(deadline: Deadline, nodes: tuple[str, ...], what: str) -> NodeFailure:
    return NodeFailure(
        node=nodes[0] if nodes else None,
        type=FAILURE,
        message=f"the cell's time limit of {deadline.limit:g} s was over, {what}",
        traceback="",
    )


def _over(failure: NodeFailure) -> Stop:
    return Stop(kind=StopKind.FAILED, error=failure)
