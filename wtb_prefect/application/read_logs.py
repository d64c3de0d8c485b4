"""What the code of an execution printed and logged, over its whole lineage, and what ended it."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from wtb_prefect.application.read_history import find_execution
from wtb_prefect.application.read_results import find_batch
from wtb_prefect.domain.batch_test import BatchCell, BatchTest
from wtb_prefect.domain.execution import Execution, ExecutionKind
from wtb_prefect.domain.interfaces.surroundings import CellLogReader
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.log_line import LogLine
from wtb_prefect.errors import InvalidInputError, NotFoundError


def find_cell_execution(
    uow: UnitOfWork, workflow_id: str, asked: str, batch_id: str | None = None
) -> Execution:
    """The execution that answers a cell.

    `asked` is a cell's or an execution's id, or how one begins, or `combination/case[/repeat]` of
    a batch (the newest if none is named).

    Raises:
        NotFoundError: there is none.
        InvalidInputError: several begin like that, or the cell has not begun yet.
    """
    batches = uow.batch_tests.list(workflow_id)
    if batch_id is not None or batches:
        batch = find_batch(uow, workflow_id, batch_id)
        named = _named(uow.cells.list(batch.batch_id), asked)
        if named is not None:
            return _answer(uow, named)
    if "/" in asked and batches:
        raise _no_such_place(uow, batch, asked)
    cell = uow.cells.get(asked) or _begun(uow, batches, asked)
    return _answer(uow, cell) if cell is not None else find_execution(uow, workflow_id, asked)


def read_logs(
    open_uow: OpenUnitOfWork, logs: CellLogReader, execution_id: str, node: str | None = None
) -> list[LogLine]:
    """The lines of an execution, those of its shared prefixes first, its failures last.

    `node` keeps those of one node (`outer` includes `outer|inner`). Raises `NotFoundError`.
    """
    with open_uow() as uow:
        line = uow.executions.lineage(execution_id)
        if not line:
            raise NotFoundError("execution", execution_id)
        until = [_forked_at(uow, *pair) for pair in pairwise(line)]
        failures = _failures(uow, line[-1])
    found: list[LogLine] = []
    for execution, limit in zip(line, [*until, None], strict=True):
        kept = logs.read(execution.execution_id)
        found += [entry for entry in kept if limit is None or entry.at <= limit]
    found += failures
    if node is None:
        return found
    return [e for e in found if e.node == node or (e.node or "").startswith(f"{node}|")]


def _forked_at(uow: UnitOfWork, parent: Execution, child: Execution) -> datetime | None:
    """When the child's past ends in the parent's; None if all of the parent is its past."""
    if parent.kind is ExecutionKind.SEGMENT or child.lineage is None:
        return None
    links = uow.checkpoint_files.list(parent.execution_id)
    at = [li.created_at for li in links if li.checkpoint_id == child.lineage.checkpoint_id]
    return max(at, default=None)


def _failures(uow: UnitOfWork, leaf: Execution) -> list[LogLine]:
    ended = leaf.finished_at or leaf.created_at
    found = []
    if leaf.error is not None:
        found.append((leaf.error.node, ended, leaf.error.traceback))
    results = uow.evaluation_results.list_many([leaf.execution_id])
    seen: set[str] = set()
    for result in results.get(leaf.execution_id, []):
        if result.traceback is not None and result.evaluator not in seen:
            seen.add(result.evaluator)
            found.append((f"evaluator {result.evaluator}", result.created_at, result.traceback))
    return [
        LogLine(
            execution_id=leaf.execution_id,
            at=at,
            node=node,
            level="traceback",
            text=text.rstrip("\n"),
        )
        for node, at, text in found
    ]


def _named(cells: list[BatchCell], asked: str) -> BatchCell | None:
    for cell in cells:
        place = f"{cell.combination}/{cell.case_id}"
        if asked == f"{place}/{cell.repeat}" or (cell.repeat == 0 and asked == place):
            return cell
    return None


def _begun(uow: UnitOfWork, batches: list[BatchTest], asked: str) -> BatchCell | None:
    """The one cell whose id begins like that; executions are looked for by the caller."""
    cells = (cell for batch in batches for cell in uow.cells.list(batch.batch_id))
    found = [cell for cell in cells if asked and cell.cell_id.startswith(asked)]
    if len(found) > 1:
        ids = ", ".join(sorted(cell.cell_id for cell in found)[:5])
        raise InvalidInputError(f"{len(found)} cells begin with {asked!r}: {ids}")
    return found[0] if found else None


def _answer(uow: UnitOfWork, cell: BatchCell) -> Execution:
    found = uow.executions.get(cell.execution_id) if cell.execution_id is not None else None
    if found is None:
        place = f"{cell.combination}/{cell.case_id}/{cell.repeat}"
        raise InvalidInputError(f"cell {place} is {cell.status} and has no execution yet")
    return found


def _no_such_place(uow: UnitOfWork, batch: BatchTest, asked: str) -> NotFoundError:
    cells = uow.cells.list(batch.batch_id)
    places = [f"{cell.combination}/{cell.case_id}/{cell.repeat}" for cell in cells]
    return NotFoundError(f"cell of batch {batch.batch_id}", asked, places)
