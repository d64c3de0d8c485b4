"""Running one controlled execution until it stops: claimed, recorded and given back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wtb_prefect.application.at_work import begin_work, end_work, is_at_work
from wtb_prefect.application.attempts import run_attempts
from wtb_prefect.application.batch_owner import IsAlive
from wtb_prefect.application.begin_segment import Begin
from wtb_prefect.application.process_outbox import process_pending
from wtb_prefect.application.run_attempt import Attempt, Terms, counted
from wtb_prefect.application.session import Session
from wtb_prefect.application.settle_workspace import is_kept, settle_workspace
from wtb_prefect.domain.batch_test import Case, Owner
from wtb_prefect.domain.events import stopped
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.execution_control import (
    ControlRequest,
    ExecutionControl,
    Move,
    check_move,
)
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import Hold
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.errors import InvalidInputError, NotFoundError

VERIFIED_AT_ONCE = 100
"""Claims that a call verifies when it ends: there may be no server that does so on a schedule."""

ACTOR = "execution_control"
"""Who did it, in the audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Who controls: the process that runs what it resumes, and how to see whether others live."""

    owner: Owner
    is_alive: IsAlive

    def runs(self, control: ExecutionControl | None) -> bool:
        """Whether a live process runs the execution now, this one included."""
        if control is None or control.owner is None:
            return False
        return is_at_work(control.owner, control.execution_id, self.is_alive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """How far to run: to the end or a breakpoint, or one super-step; with what changed first."""

    stepping: bool = False
    edit: Mapping[str, Any] | None = None
    answers: Mapping[str, Any] = field(default_factory=dict)


def controlled(uow: UnitOfWork, execution_id: str) -> tuple[Execution, ExecutionControl | None]:
    """An execution with what controls it. Raises `NotFoundError`."""
    found = uow.executions.get(execution_id)
    if found is None:
        raise NotFoundError("execution", execution_id)
    return found, uow.execution_controls.get(execution_id)


def claim(
    uow: UnitOfWork, execution_id: str, breakpoints: tuple[str, ...] | None, by: Controller
) -> tuple[Execution, ExecutionControl]:
    """Takes an execution to run it on, in the caller's transaction: two cannot have it at once.

    Raises:
        IllegalMoveError: it cannot be resumed as it stands.
    """
    known, control = controlled(uow, execution_id)
    check_move(Move.RESUME, known, is_live=by.runs(control))
    assert control is not None, "written with every execution of kind run"
    kept = control.breakpoints if breakpoints is None else breakpoints
    control = replace(control, owner=by.owner, asked=None, breakpoints=kept)
    going_on = replace(
        known, status=ExecutionStatus.RUNNING, error=None, finished_at=None, next_nodes=()
    )
    uow.execution_controls.save(control)
    uow.executions.save(going_on)
    begin_work(execution_id, by.owner)
    return going_on, control


async def drive(begin: Begin, control: ExecutionControl, how: Drive, session: Session) -> Execution:
    """Runs a claimed execution until it stops, and records how it stands then.

    Raises:
        InvalidInputError: the state cannot be changed as asked; it is paused where it stood.
        InfrastructureError: a store failed; it is `crashed`, and resume goes on from its last
            record. After Ctrl-C it is paused there.
    """
    execution_id = begin.execution.execution_id
    hold = Hold(
        breakpoints=frozenset(control.breakpoints),
        stepping=how.stepping,
        is_asked=lambda: _asked(execution_id, session) is not None,
    )
    terms = Terms(hold=hold, edit=how.edit, answers=how.answers)
    case = Case(
        id=begin.execution.case_id or "run",
        state=session.codec.load(control.encoding, control.payload),
    )
    try:
        attempt, _ = await run_attempts(begin, case, terms, session)
        ended = _record_end(attempt, control, session)
    except BaseException as exc:  # whatever it was, the execution is given back; raised on
        _give_back(control, exc, session)
        raise
    finally:
        end_work(execution_id)
    if not is_kept(session.project.keep_workspaces, ended.status):
        attempt.workspace.remove()
        session.workspaces.sweep()
    process_pending(session, VERIFIED_AT_ONCE)
    return ended


def _asked(execution_id: str, session: Session) -> ControlRequest | None:
    with session.open_uow() as uow:
        return uow.execution_controls.asked(execution_id)


def _record_end(attempt: Attempt, control: ExecutionControl, session: Session) -> Execution:
    with session.open_uow(write=True) as uow:
        attempt.recorder.write_end(uow)
        ended = counted(attempt.ended, attempt.recorder)
        is_stopped = uow.execution_controls.asked(ended.execution_id) is ControlRequest.STOP
        if is_stopped and ended.status is not ExecutionStatus.FAILED:
            # Also where the last node was running: who asked was told that it will be cancelled.
            ended = replace(ended, status=ExecutionStatus.CANCELLED)
        ended = settle_workspace(ended, attempt.workspace, session.project.keep_workspaces)
        uow.executions.save(ended)
        uow.execution_controls.save(replace(control, owner=None, asked=None))
        uow.record(stopped(ended, session.clock.now()), ACTOR)
        uow.commit()
    return ended


def _give_back(control: ExecutionControl, exc: BaseException, session: Session) -> None:
    interrupted = isinstance(exc, (InvalidInputError, KeyboardInterrupt, asyncio.CancelledError))
    status = ExecutionStatus.PAUSED if interrupted else ExecutionStatus.CRASHED
    with session.open_uow(write=True) as uow:
        found = uow.executions.get(control.execution_id)
        if found is None:
            return
        is_stopped = uow.execution_controls.asked(found.execution_id) is ControlRequest.STOP
        left = replace(found, status=ExecutionStatus.CANCELLED if is_stopped else status)
        uow.executions.save(left)
        uow.execution_controls.save(replace(control, owner=None, asked=None))
        why = session.surroundings.mask(f"{type(exc).__name__}: {exc}")
        uow.record(stopped(left, session.clock.now(), why), ACTOR)
        uow.commit()


def audit(execution: Execution, action: str, session: Session, **details: Any) -> AuditEntry:
    """What was done to an execution, for the audit log."""
    return AuditEntry(
        at=session.clock.now(),
        actor=ACTOR,
        action=f"execution.{action}",
        subject=execution.execution_id,
        details=details,
    )
