"""Outputs of nodes kept by a batch that records them, and replayed by a later one.

A checkpoint holds what became of the state, not what a node returned: of a key with a reducer the
output cannot be told from it, and pending writes are saved only of nodes that ran beside others. So
a batch keeps the outputs of the nodes it is asked to record, in the transaction of their visits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from wtb_prefect.application.load_case import load_cases
from wtb_prefect.application.read_history import boundaries_behind, read_boundaries
from wtb_prefect.application.session import Session, cell_id_of
from wtb_prefect.domain.batch_test import BASELINE, BatchCell, Case, VariantCombination
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.mock_node import KeptOutput, NodeMock, ReplayedNode
from wtb_prefect.domain.node_boundary import BoundaryStatus, NodeBoundary
from wtb_prefect.domain.node_result import NodeResult
from wtb_prefect.domain.workflow import ORIGINAL
from wtb_prefect.errors import InvalidInputError, NotFoundError

Sources = Mapping[tuple[str, int, str], Mapping[str, str]]
"""(case, repeat, combination) -> recorded node -> the execution whose outputs it replays."""


def find_recording(node: str, batch_id: str | None, session: Session) -> str:
    """The batch that recorded a node: of an id (or its beginning), or the newest.

    Raises:
        NotFoundError: no such batch, or it has not recorded the node.
        InvalidInputError: several begin like that.
    """
    with session.open_uow() as uow:
        batches = uow.batch_tests.list(session.project.workflow_id)
    have = [b.batch_id for b in batches if node in b.request.get("recorded", ())]
    if batch_id is None and have:
        return have[0]
    if batch_id in have:
        return batch_id
    asked = batch_id or "(the newest)"
    found = [known for known in have if batch_id is not None and known.startswith(batch_id)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInputError(f"{len(found)} batches begin with {asked!r}: {', '.join(found)}")
    raise NotFoundError(f"batch that recorded node {node!r} (run it with record)", asked, have)


def source_of(
    uow: UnitOfWork, mock: NodeMock, case_id: str, repeat: int, combination: VariantCombination
) -> BatchCell | None:
    """The cell of the recording batch whose outputs stand for a node; None if there is none.

    Of the combinations with the same choices at the node and before it the first requested, else
    the baseline: cells that share a prefix so replay the same recording.
    """
    batch = uow.batch_tests.get(str(mock.batch))
    if batch is None:
        return None
    known = [VariantCombination.of(choices) for choices in batch.request["combinations"]]
    same = [c for c in known if _agree(c, combination, mock.upstream)]
    for found in [*same, *(c for c in known if c.name == BASELINE)]:
        cell = uow.cells.get(cell_id_of(batch.batch_id, case_id, repeat, found.name))
        if cell is not None and cell.status is ExecutionStatus.COMPLETED:
            return cell
    return None


def check_sources(
    mocks: Sequence[NodeMock],
    cases: Sequence[Case],
    repeats: int,
    combinations: Sequence[VariantCombination],
    session: Session,
) -> Sources:
    """What each cell replays.

    Raises:
        InvalidInputError: a cell without a recording, or a case that was another one then.
    """
    found: dict[tuple[str, int, str], dict[str, str]] = {}
    for mock in mocks:
        if mock.batch is None:
            continue
        _check_cases(mock, cases, session)
        with session.open_uow() as uow:
            for case in cases:
                for repeat in range(repeats):
                    for combination in combinations:
                        source = source_of(uow, mock, case.id, repeat, combination)
                        execution_id = _checked(uow, mock, source, case.id, repeat)
                        key = (case.id, repeat, combination.name)
                        found.setdefault(key, {})[mock.node] = execution_id
    return found


def unrecorded(uow: UnitOfWork, cells: Sequence[BatchCell], nodes: Sequence[str]) -> dict[str, str]:
    """Cell id -> the first of the nodes whose outputs its execution has not kept."""
    missing: dict[str, str] = {}
    for cell in cells:
        line = uow.executions.lineage(cell.execution_id) if cell.execution_id else []
        node = next((n for n in nodes if not line or not _kept(line, n)), None)
        if node is not None:
            missing[cell.cell_id] = node
    return missing


def kept_result(
    execution: Execution,
    session: Session,
    node: str,
    task_id: str,
    output: KeptOutput,
) -> NodeResult:
    """The row of what a node returned. Raises `StateError` for what no checkpoint can hold."""
    variant = execution.choices.get(node, ORIGINAL)
    encoding, payload = session.codec.dump({"place": output.place, "value": output.value})
    return NodeResult(
        key=_key(execution.execution_id, task_id),
        workflow_id=execution.workflow_id,
        node=node,
        fingerprint=session.engine.variant_fingerprint(node, variant),
        encoding=encoding,
        payload=payload,
        changed=output.changed,
        removed=output.removed,
        seconds=0.0,
        created_at=session.clock.now(),
        execution_id=execution.execution_id,
    )


def replayed_node(
    mock: NodeMock, sources: Collection[str], execution: Execution, session: Session
) -> ReplayedNode:
    """The recorded node of one execution, its outputs read when it is first visited."""
    with session.open_uow() as uow:
        # The row of a fresh execution follows later: its lineage is its parent's, and itself.
        parent = execution.lineage.parent_id if execution.lineage else None
        line = [] if parent is None else uow.executions.lineage(parent)
        past = boundaries_behind(uow, [*line, execution])
    undecided = None
    if len(sources) != 1:
        undecided = (
            f"recorded node {mock.node!r} was reached before the choices its recording depends on"
        )
    return ReplayedNode(
        source=f"batch {mock.batch}",
        read=partial(_outputs, mock.node, next(iter(sources), ""), session),
        earlier=frozenset(boundary.step for boundary in past if boundary.node == mock.node),
        undecided=undecided,
    )


def _outputs(node: str, execution_id: str, session: Session) -> list[Mapping[str, KeptOutput]]:
    visits = [
        boundary
        for boundary in read_boundaries(session.open_uow, execution_id)
        if boundary.node == node and boundary.status is BoundaryStatus.COMPLETED
    ]
    steps: dict[int, dict[str, KeptOutput]] = {}
    with session.open_uow() as uow:
        for visit in sorted(visits, key=lambda found: found.step):
            output = _output(uow, visit, session)
            steps.setdefault(visit.step, {})[output.place] = output
    return list(steps.values())


def _output(uow: UnitOfWork, visit: NodeBoundary, session: Session) -> KeptOutput:
    result = uow.node_results.get(_key(visit.execution_id, visit.task_id))
    if result is None:
        raise InvalidInputError(
            f"the recording of node {visit.node!r} in execution {visit.execution_id} is gone; "
            "record its batch again"
        )
    data = session.codec.load(result.encoding, result.payload)
    return KeptOutput(
        place=data["place"],
        value=data["value"],
        changed=result.changed,
        removed=result.removed,
    )


def _key(execution_id: str, task_id: str) -> str:
    return stable_id("recorded", execution_id, task_id)


def _agree(one: VariantCombination, other: VariantCombination, nodes: Sequence[str]) -> bool:
    return all(one.variant_of(node) == other.variant_of(node) for node in nodes)


def _kept(line: Sequence[Execution], node: str) -> bool:
    return all(node in execution.metadata.get("recorded", ()) for execution in line)


def _checked(
    uow: UnitOfWork, mock: NodeMock, source: BatchCell | None, case_id: str, repeat: int
) -> str:
    if source is None or source.execution_id is None:
        raise InvalidInputError(
            f"recorded node {mock.node!r}: batch {mock.batch} has no completed cell of case "
            f"{case_id!r}, repeat {repeat}; run it there with record={mock.node!r} first"
        )
    if unrecorded(uow, [source], [mock.node]):
        raise InvalidInputError(
            f"recorded node {mock.node!r}: batch {mock.batch} ran case {case_id!r}, repeat "
            f"{repeat}, without recording the node; run it again with record={mock.node!r}"
        )
    return source.execution_id


def _check_cases(mock: NodeMock, cases: Sequence[Case], session: Session) -> None:
    """The recording of another question under the same id would be an answer to nothing."""
    then = {case.id: case for case in load_cases(session, str(mock.batch))}
    for case in cases:
        if case.id in then and _state(session, then[case.id]) != _state(session, case):
            raise InvalidInputError(
                f"recorded node {mock.node!r}: case {case.id!r} had another state in batch "
                f"{mock.batch}; give the changed case an id of its own, or record it again"
            )


def _state(session: Session, case: Case) -> bytes:
    return session.codec.dump({"state": dict(case.state)})[1]
