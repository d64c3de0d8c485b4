"""From what a user types to a cell: an id, how one begins, or `combination/case[/repeat]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wtb_prefect.application.read_history import find_execution
from wtb_prefect.application.read_results import find_batch
from wtb_prefect.domain.batch_test import BatchCell
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.errors import InvalidInputError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCell:
    """A cell and the execution that answers it; None: it has not begun, or lost its worker."""

    cell: BatchCell
    execution: Execution | None


def find_cell(
    uow: UnitOfWork, workflow_id: str, asked: str, batch_id: str | None = None
) -> FoundCell:
    """The cell of a batch (the newest if none is named), or of any batch by an id.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: several begin like that, or the execution answers no cell.
    """
    batch = find_batch(uow, workflow_id, batch_id)
    cells = uow.cells.list(batch.batch_id)
    cell = _at_place(cells, asked) or uow.cells.get(asked) or _begun(cells, asked)
    if cell is not None:
        known = None if cell.execution_id is None else uow.executions.get(cell.execution_id)
        return FoundCell(cell=cell, execution=known)
    if "/" in asked:
        raise NotFoundError(f"cell of batch {batch.batch_id}", asked, map(place_of, cells))
    return _of_execution(uow, find_execution(uow, workflow_id, asked), batch.batch_id)


def place_of(cell: BatchCell) -> str:
    """`combination/case/repeat`, as `find_cell` takes it."""
    return f"{cell.combination}/{cell.case_id}/{cell.repeat}"


def _at_place(cells: Sequence[BatchCell], asked: str) -> BatchCell | None:
    for cell in cells:
        first = cell.repeat == 0 and asked == f"{cell.combination}/{cell.case_id}"
        if first or asked == place_of(cell):
            return cell
    return None


def _begun(cells: Sequence[BatchCell], asked: str) -> BatchCell | None:
    found = [cell for cell in cells if asked and cell.cell_id.startswith(asked)]
    if len(found) > 1:
        ids = ", ".join(sorted(cell.cell_id for cell in found)[:5])
        raise InvalidInputError(f"{len(found)} cells begin with {asked!r}: {ids}")
    return found[0] if found else None


def _of_execution(uow: UnitOfWork, execution: Execution, batch_id: str) -> FoundCell:
    """Of the cells it answers, one of the batch asked for if there is one."""
    cells = uow.cells.list_by_executions([execution.execution_id])
    if not cells:
        raise InvalidInputError(
            f"execution {execution.execution_id} answers no cell (it is a {execution.kind}): name "
            "a cell, as combination/case"
        )
    cell = min(cells, key=lambda found: found.batch_id != batch_id)
    return FoundCell(cell=cell, execution=execution)
