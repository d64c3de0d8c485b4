"""Running a workflow once, under control: `bench.run`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wtb_prefect.application.at_work import begin_work
from wtb_prefect.application.begin_segment import Begin
from wtb_prefect.application.commit_base_workspace import commit_base_workspace
from wtb_prefect.application.drive_execution import ACTOR, Controller, Drive, drive
from wtb_prefect.application.matrix import expand_matrix
from wtb_prefect.application.session import Session
from wtb_prefect.domain.events import started
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.domain.execution_control import ExecutionControl
from wtb_prefect.errors import NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One run that a user asks for.

    `graph` is the import path of a graph given with it, `marks` are kept with the execution.
    """

    execution_id: str
    state: Mapping[str, Any]
    variants: Mapping[str, str] = field(default_factory=dict)
    breakpoints: Sequence[str] = ()
    graph: str | None = None
    marks: Mapping[str, str] = field(default_factory=dict)


async def start_execution(request: RunRequest, session: Session, by: Controller) -> Execution:
    """Runs from the start to the end, a breakpoint, a question or a failure.

    Raises:
        NotFoundError, StateError: a name or the state is wrong; nothing was written.
    """
    choices = checked_choices(request.variants, session)
    breakpoints = checked_breakpoints(request.breakpoints, session)
    session.engine.check_input(request.state)
    encoding, payload = session.codec.dump(dict(request.state))
    base = commit_base_workspace(session)
    workflow = session.engine.describe()
    execution = Execution(
        execution_id=request.execution_id,
        workflow_id=workflow.workflow_id,
        kind=ExecutionKind.RUN,
        status=ExecutionStatus.RUNNING,
        choices=choices,
        created_at=session.clock.now(),
        commit_id=None if base is None else base.commit_id,
        metadata=dict(request.marks),
    )
    control = ExecutionControl(
        execution_id=request.execution_id,
        owner=by.owner,
        asked=None,
        breakpoints=breakpoints,
        graph=request.graph,
        encoding=encoding,
        payload=payload,
    )
    with session.open_uow(write=True) as uow:
        uow.workflows.save(workflow)
        if base is not None:
            uow.file_commits.add(base)
        uow.executions.add(execution)
        uow.execution_controls.save(control)
        uow.record(started(execution, session.clock.now()), ACTOR)
        begin_work(request.execution_id, by.owner)
        uow.commit()
    return await drive(Begin(execution=execution), control, Drive(), session)


def checked_choices(variants: Mapping[str, str] | None, session: Session) -> dict[str, str]:
    """The variants by node. Raises `NotFoundError` for an unknown node or variant."""
    names: dict[str, list[str]] = defaultdict(list)
    for variant in session.project.variants:
        names[variant.node].append(variant.name)
    nodes = session.engine.describe().node_names()
    (combination,) = expand_matrix([dict(variants or {})], nodes, names)
    return dict(combination.choices)


def checked_breakpoints(breakpoints: Sequence[str], session: Session) -> tuple[str, ...]:
    """The nodes to stop before. Raises `NotFoundError` for one that the graph does not have."""
    nodes = session.engine.describe().node_names()
    asked = (breakpoints,) if isinstance(breakpoints, str) else tuple(breakpoints)
    for node in asked:
        if node not in nodes:
            raise NotFoundError("node", node, nodes)
    return asked
