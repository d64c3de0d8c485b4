"""What the ledger has of the cells of a batch: answers, stale ones and why, those left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from wtb_prefect.application.choose_cells import CellChoice
from wtb_prefect.application.recorded_nodes import unrecorded
from wtb_prefect.application.staleness import changes
from wtb_prefect.domain.batch_test import BatchCell, RunOptions
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork


class CellState(StrEnum):
    """What the ledger says of a planned cell."""

    NEW = "new"
    DONE = "done"
    ADOPTED = "adopted"
    FAILED = "failed"
    PAUSED = "paused"
    STALE = "stale"
    KEPT = "kept"
    """Done, stale, and left as it is on request."""
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell, what the ledger has of it, and for a stale or kept one what changed since.

    `again`: it failed and is to be tried again from its last record. `recorded`: the ledger has it
    as a cell of this batch.
    """

    cell: BatchCell
    state: CellState
    changed: tuple[str, ...] = ()
    again: bool = False
    recorded: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether running the plan runs this cell."""
        return self.state in (CellState.NEW, CellState.STALE) or self.again


UNANSWERED: dict[str, Any] = {
    "status": ExecutionStatus.PENDING,
    "execution_id": None,
    "adopted_from": None,
    "unshared_reason": None,
    "stale": (),
}
"""A cell that nothing has answered."""


def compare_cells(
    cells: Sequence[BatchCell],
    batch_id: str,
    choice: CellChoice | None,
    uow: UnitOfWork,
    options: RunOptions,
) -> tuple[PlannedCell, ...]:
    """What the ledger has of these cells of a batch, as the caller's transaction sees it."""
    recorded = {cell.cell_id: cell for cell in uow.cells.list(batch_id)}
    unknown = [c.key for c in cells if c.cell_id not in recorded and _is_reusable(c)]
    elsewhere = uow.cells.find_completed(unknown)
    planned = [
        _planned(cell, recorded.get(cell.cell_id), elsewhere.get(cell.key), options.keep_stale)
        for cell in cells
    ]
    if options.retry_failed:
        planned = [
            replace(known, cell=cell, again=True) if known.state is CellState.FAILED else known
            for known, cell in zip(planned, cells, strict=True)
        ]
    if options.record:
        planned = _to_record(planned, options.record, uow)
    return tuple(
        _chosen(replace(found, recorded=found.cell.cell_id in recorded), choice)
        for found in planned
    )


def _to_record(
    planned: Sequence[PlannedCell], nodes: Sequence[str], uow: UnitOfWork
) -> list[PlannedCell]:
    """Answers without the recordings that are asked for do not count."""
    answered = (CellState.DONE, CellState.ADOPTED)
    missing = unrecorded(uow, [p.cell for p in planned if p.state in answered], nodes)
    return [
        PlannedCell(
            cell=replace(p.cell, **UNANSWERED),
            state=CellState.STALE,
            changed=(f"recording of {missing[p.cell.cell_id]}",),
        )
        if p.cell.cell_id in missing
        else p
        for p in planned
    ]


def _chosen(planned: PlannedCell, choice: CellChoice | None) -> PlannedCell:
    cell = planned.cell
    if choice is None or not planned.is_wanted or choice.has(cell.case_id, cell.combination):
        return planned
    return replace(planned, state=CellState.LEFT_OUT)


def _is_reusable(cell: BatchCell) -> bool:
    """Code that captures something without a readable value is not reused across batches."""
    return not any(value.startswith("?") for value in cell.fingerprints.values())


_ENDED = {
    ExecutionStatus.COMPLETED: CellState.DONE,
    ExecutionStatus.FAILED: CellState.FAILED,
    # It asks the same question again until its case has an answer, which is another key.
    ExecutionStatus.PAUSED: CellState.PAUSED,
}


def _planned(
    cell: BatchCell, recorded: BatchCell | None, elsewhere: BatchCell | None, keep_stale: bool
) -> PlannedCell:
    if recorded is None:
        if elsewhere is None:
            return PlannedCell(cell=cell, state=CellState.NEW)
        return PlannedCell(cell=_answered(cell, elsewhere), state=CellState.ADOPTED)
    state = _ENDED.get(recorded.status)
    if state is None:
        return PlannedCell(cell=cell, state=CellState.NEW)
    if recorded.key == cell.key:
        # The same values, but one mapping for all repeats instead of one for each row read.
        same = replace(recorded, fingerprints=cell.fingerprints)
        return PlannedCell(cell=same, state=state)
    # A failed cell is no result to keep: what changed may be what was wrong with it.
    kept = keep_stale and state is CellState.DONE
    state = CellState.KEPT if kept else CellState.STALE
    return PlannedCell(cell=cell, state=state, changed=changes(recorded, cell))


def _answered(cell: BatchCell, other: BatchCell) -> BatchCell:
    return replace(
        cell,
        status=other.status,
        execution_id=other.execution_id,
        adopted_from=other.batch_id,
        unshared_reason=other.unshared_reason,
    )
