"""Pausing and stopping an execution, whichever process runs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from wtb_prefect.application.drive_execution import ACTOR, Controller, audit, controlled
from wtb_prefect.application.session import Session
from wtb_prefect.domain.events import stopped
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.execution_control import ControlRequest, Move, check_move

_LOOK_SECONDS = 0.05


async def pause_execution(
    execution_id: str, session: Session, by: Controller, wait: float
) -> Execution:
    """Asks a running execution to pause before its next super-step, and waits for that.

    After `wait` seconds it is still `running` if a node takes longer; the request stands. One that
    ended meanwhile is as it ended.

    Raises:
        NotFoundError, IllegalMoveError: it does not exist, or does not run.
    """
    with session.open_uow(write=True) as uow:
        known, control = controlled(uow, execution_id)
        check_move(Move.PAUSE, known, is_live=by.runs(control))
        if uow.execution_controls.asked(execution_id) is not ControlRequest.STOP:
            uow.execution_controls.ask(execution_id, ControlRequest.PAUSE)
            uow.audit_log.append(audit(known, "pause_asked", session))
        uow.commit()
    return await _until_left(execution_id, session, by, wait)


async def stop_execution(
    execution_id: str, session: Session, by: Controller, wait: float
) -> Execution:
    """Cancels an execution for good: at once, or before the next super-step of one that runs.

    Raises:
        NotFoundError, IllegalMoveError: it does not exist, or has ended already.
    """
    with session.open_uow(write=True) as uow:
        known, control = controlled(uow, execution_id)
        is_live = by.runs(control)
        check_move(Move.STOP, known, is_live=is_live)
        if is_live:
            uow.execution_controls.ask(execution_id, ControlRequest.STOP)
            uow.audit_log.append(audit(known, "stop_asked", session))
        else:
            now = session.clock.now()
            known = replace(known, status=ExecutionStatus.CANCELLED, finished_at=now)
            uow.executions.save(known)
            uow.record(stopped(known, now), ACTOR)
        uow.commit()
    return await _until_left(execution_id, session, by, wait) if is_live else known


async def _until_left(
    execution_id: str, session: Session, by: Controller, wait: float
) -> Execution:
    """The execution once nobody runs it any more, or as it is after the wait."""
    until = session.clock.elapsed() + wait
    while True:
        with session.open_uow() as uow:
            found, control = controlled(uow, execution_id)
        if not by.runs(control) or session.clock.elapsed() >= until:
            return found
        await asyncio.sleep(_LOOK_SECONDS)
