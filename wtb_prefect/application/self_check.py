"""Running some cells of a batch again, unshared, and comparing everything they left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest

from wtb_prefect.application.plan_batch import BatchPlan
from wtb_prefect.application.read_history import read_files, read_history
from wtb_prefect.application.read_self_check import SELF_CHECKED
from wtb_prefect.application.run_segment import run_segment
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.domain.batch_test import BatchCell
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import digest, thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.errors import LedgerError

_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class CellDifference:
    """Where one cell, run again on its own, ended otherwise than in the batch."""

    combination: str
    case_id: str
    repeat: int
    execution_id: str
    alone_id: str
    where: str


async def self_check(plan: BatchPlan, scope: BatchScope, session: Session) -> None:
    """Runs `options.self_check` completed cells of the plan again and keeps what came of it.

    Each runs alone from its start, in an execution that answers no cell: state (but for message
    ids, which LangGraph draws at random), files, path and status are compared. The result stands
    in the audit log, with the executions to look at.
    """
    with session.open_uow() as uow:
        recorded = {cell.cell_id: cell for cell in uow.cells.list(plan.batch_id)}
    ours = [recorded[p.cell.cell_id] for p in plan.cells if p.cell.cell_id in recorded]
    cells = sample_cells(ours, plan.options.self_check, plan.batch_id)
    alone, quiet = _apart(scope, session)
    found: list[CellDifference] = []
    for cell in cells:
        found += await _check(cell, alone, quiet)
    with session.open_uow(write=True) as uow:
        uow.audit_log.append(_entry(plan, session, cells, found))
        uow.commit()


def sample_cells(cells: Sequence[BatchCell], k: int, batch_id: str) -> list[BatchCell]:
    """`k` completed cells, the same ones for the same batch: every combination has its turn."""
    done = [c for c in cells if c.status is ExecutionStatus.COMPLETED and c.execution_id]
    rows: dict[str, list[BatchCell]] = {}
    for cell in sorted(done, key=lambda c: digest("self-check", batch_id, c.cell_id)):
        rows.setdefault(cell.combination, []).append(cell)
    turns = zip_longest(*rows.values())
    return [cell for turn in turns for cell in turn if cell is not None][:k]


def _apart(scope: BatchScope, session: Session) -> tuple[BatchScope, Session]:
    """The same batch under roots of this pass only, and a session that scores and tells nothing."""
    started = session.clock.now().isoformat()
    roots = (*scope.roots, f"self-check {started}")
    alone = replace(scope, roots=roots, marks={"self_check": started})
    project = replace(session.project, evaluators=())
    quiet = replace(session, project=project, evaluator_fingerprints={})
    return alone, quiet


async def _check(cell: BatchCell, scope: BatchScope, session: Session) -> list[CellDifference]:
    before = _execution(session, str(cell.execution_id))
    item = WorkItem(
        case_id=cell.case_id,
        repeat=cell.repeat,
        combinations=(cell.combination,),
        wanted=(),  # answers no cell
        shared=False,
        unshared_reason="self-check",
    )
    outcome = await run_segment(item, scope, session)
    after = _execution(session, str(outcome.execution_id))
    where = _difference(before, after, session)
    if where is None:
        return []
    return [
        CellDifference(
            combination=cell.combination,
            case_id=cell.case_id,
            repeat=cell.repeat,
            execution_id=before.execution_id,
            alone_id=after.execution_id,
            where=where,
        )
    ]


def _difference(before: Execution, after: Execution, session: Session) -> str | None:
    """The first difference, in words."""
    if before.status is not after.status:
        reason = f": {after.error}" if after.error else ""
        return f"status is {before.status}, alone {after.status}{reason}"
    paths = _path(session, before), _path(session, after)
    if paths[0] != paths[1]:
        return f"path is {_short(paths[0])}, alone {_short(paths[1])}"
    return _state(before, after, session) or _files(before, after, session)


def _state(before: Execution, after: Execution, session: Session) -> str | None:
    states = [
        session.engine.state(thread_id(e.execution_id), e.head).values if e.head else {}
        for e in (before, after)
    ]
    for key in sorted({*states[0], *states[1]}):
        values = [state.get(key) for state in states]
        found = session.engine.difference(values[0], values[1], f"state key {key!r}")
        if found is not None:
            return f"{found} when run alone ({_short(values[0])}, alone {_short(values[1])})"
    return None


def _files(before: Execution, after: Execution, session: Session) -> str | None:
    trees = [read_files(session.open_uow, e.execution_id, None) for e in (before, after)]
    for path in sorted({*trees[0], *trees[1]}):
        if trees[0].get(path) != trees[1].get(path):
            have = ["there" if path in tree else "missing" for tree in trees]
            what = "has other content" if have[0] == have[1] else f"is {have[0]}, alone {have[1]}"
            return f"file {path!r} {what}"
    return None


def _path(session: Session, execution: Execution) -> list[tuple[str, ...]]:
    points = read_history(session.open_uow, execution.execution_id).checkpoints
    return [tuple(sorted(point.nodes)) for point in points if point.nodes]


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _execution(session: Session, execution_id: str) -> Execution:
    with session.open_uow() as uow:
        found = uow.executions.get(execution_id)
    if found is None:
        raise LedgerError(f"execution {execution_id}, to be compared, is not in the ledger")
    return found


def _entry(
    plan: BatchPlan,
    session: Session,
    cells: Sequence[BatchCell],
    found: Sequence[CellDifference],
) -> AuditEntry:
    return AuditEntry(
        at=session.clock.now(),
        actor="self_check",
        action=SELF_CHECKED,
        subject=plan.batch_id,
        details={
            "checked": len(cells),
            "equal": len(cells) - len(found),
            "differences": [asdict(difference) for difference in found],
        },
    )
