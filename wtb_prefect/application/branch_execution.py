"""A new execution that goes on from a checkpoint of another one, its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wtb_prefect.application.at_work import begin_work
from wtb_prefect.application.drive_execution import ACTOR, Controller, Drive, controlled, drive
from wtb_prefect.application.fork_at_point import begin_at_point, begin_links, fork_point
from wtb_prefect.application.read_history import find_point
from wtb_prefect.application.read_state import holder_of
from wtb_prefect.application.session import Session
from wtb_prefect.application.start_execution import checked_breakpoints, checked_choices
from wtb_prefect.domain.events import CheckpointBranched, started
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.domain.execution_control import ExecutionControl
from wtb_prefect.domain.file_processing import CheckpointFileLink


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchRequest:
    """What a user asks for: from where, and what is different. `execution_id` is the new one's."""

    execution_id: str
    source_id: str
    checkpoint_id: str
    variants: Mapping[str, str] = field(default_factory=dict)
    edit: Mapping[str, Any] | None = None
    breakpoints: Sequence[str] = ()


async def branch_execution(request: BranchRequest, session: Session, by: Controller) -> Execution:
    """Runs only what follows the checkpoint, in a workspace with the files of that point.

    The source may be any execution, one of a batch or one that is running included; nothing of it
    changes. So may the checkpoint be one that the source has left behind by being rolled back.

    Raises:
        NotFoundError, InvalidInputError: nothing was written.
    """
    chosen = checked_choices(request.variants, session)
    breakpoints = checked_breakpoints(request.breakpoints, session)
    if request.edit is not None:
        session.engine.check_edit(request.edit)
    owner_id, place = find_point(session.open_uow, request.source_id, request.checkpoint_id)
    holder = holder_of(owner_id, place, session)
    with session.open_uow() as uow:
        source, known = controlled(uow, owner_id)
        point = fork_point(uow, holder, place)
    fresh = Execution(
        execution_id=request.execution_id,
        workflow_id=source.workflow_id,
        kind=ExecutionKind.RUN,
        status=ExecutionStatus.RUNNING,
        choices={**source.choices, **chosen},
        created_at=session.clock.now(),
        case_id=source.case_id,
        repeat=source.repeat,
        metadata={"branch_of": request.source_id},
    )
    begin = begin_at_point(fresh, point, source.answers, session)
    # The state comes from the checkpoint; the input that led there is not given again.
    encoding, payload = session.codec.dump({})
    control = ExecutionControl(
        execution_id=request.execution_id,
        owner=by.owner,
        asked=None,
        breakpoints=breakpoints,
        graph=known.graph if known else None,
        encoding=encoding,
        payload=payload,
    )
    links = begin_links(request.execution_id, point)
    branched = CheckpointBranched(
        at=session.clock.now(),
        execution_id=request.execution_id,
        batch_id=None,
        checkpoint_id=request.checkpoint_id,
        source_id=request.source_id,
        variants=chosen,
        edited=tuple(sorted(request.edit or {})),
    )
    _save(begin.execution, links, control, by, branched, session)
    begin = replace(begin, sequence=len(links))
    return await drive(begin, control, Drive(edit=request.edit), session)


def _save(
    fresh: Execution,
    links: Sequence[CheckpointFileLink],
    control: ExecutionControl,
    by: Controller,
    branched: CheckpointBranched,
    session: Session,
) -> None:
    """All that the ledger says of a new branch, in one transaction."""
    with session.open_uow(write=True) as uow:
        uow.executions.add(fresh)
        for link in links:
            uow.checkpoint_files.save(link)
        uow.execution_controls.save(control)
        uow.record(started(fresh, branched.at), ACTOR)
        uow.record(branched, ACTOR)
        begin_work(fresh.execution_id, by.owner)
        uow.commit()
