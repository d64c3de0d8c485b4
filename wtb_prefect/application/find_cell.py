"""From what a user types to a cell: an id, how one begins, or `combination/case[/repeat]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wtb_prefect.application.read_history import find_execution
from wtb_prefect.application.read_results import find_batch
from wtb_prefect.domain.batch_test import BatchCell, BatchTest
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
    """The cell of a place in a batch (the newest if none is named), or of any batch by an id.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: several begin like that, or the execution answers no cell.
    """
    cell = _cell(uow, workflow_id, asked, batch_id)
    if cell is not None:
        known = None if cell.execution_id is None else uow.executions.get(cell.execution_id)
        return FoundCell(cell=cell, execution=known)
    execution = find_execution(uow, workflow_id, asked)
    cells = uow.cells.list_by_executions([execution.execution_id])
    if not cells:
        raise InvalidInputError(
            f"execution {execution.execution_id} answers no cell (it is a {execution.kind}): name "
            "a cell, as combination/case"
        )
    newest = find_batch(uow, workflow_id, batch_id).batch_id
    return FoundCell(
        cell=min(cells, key=lambda found: found.batch_id != newest), execution=execution
    )


def find_cell_execution(
    uow: UnitOfWork, workflow_id: str, asked: str, batch_id: str | None = None
) -> Execution:
    """The execution that answers a cell, named as for `find_cell`, or any execution by its id.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: several begin like that, or the cell has not begun yet.
    """
    cell = _cell(uow, workflow_id, asked, batch_id)
    if cell is None:
        return find_execution(uow, workflow_id, asked)
    found = uow.executions.get(cell.execution_id) if cell.execution_id is not None else None
    if found is None:
        raise InvalidInputError(f"cell {place_of(cell)} is {cell.status} and has no execution yet")
    return found


def place_of(cell: BatchCell) -> str:
    """`combination/case/repeat`, as `find_cell` takes it."""
    return f"{cell.combination}/{cell.case_id}/{cell.repeat}"


def _at_place(cells: Sequence[BatchCell], asked: str) -> BatchCell | None:
    for cell in cells:
        first = cell.repeat == 0 and asked == f"{cell.combination}/{cell.case_id}"
        if first or asked == place_of(cell):
            return cell
    return None


def _cell(uow: UnitOfWork, workflow_id: str, asked: str, batch_id: str | None) -> BatchCell | None:
    """None where `asked` may be an execution's id."""
    batches = uow.batch_tests.list(workflow_id)
    if batch_id is not None or batches:
        batch = find_batch(uow, workflow_id, batch_id)
        cells = uow.cells.list(batch.batch_id)
        if (there := _at_place(cells, asked)) is not None:
            return there
        if "/" in asked:
            raise NotFoundError(f"cell of batch {batch.batch_id}", asked, map(place_of, cells))
    return uow.cells.get(asked) or _begun(uow, batches, asked)


def _begun(uow: UnitOfWork, batches: Sequence[BatchTest], asked: str) -> BatchCell | None:
    """The one cell whose id begins like that."""
    cells = (cell for batch in batches for cell in uow.cells.list(batch.batch_id))
    found = [cell for cell in cells if asked and cell.cell_id.startswith(asked)]
    if len(found) > 1:
        ids = ", ".join(sorted(cell.cell_id for cell in found)[:5])
        raise InvalidInputError(f"{len(found)} cells begin with {asked!r}: {ids}")
    return found[0] if found else None
