"""What a batch test returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wtb_prefect.application.plan_batch import BatchPlan
from wtb_prefect.application.read_results import BatchReport
from wtb_prefect.domain.batch_test import BatchTestResult, CellResult
from wtb_prefect.domain.execution import ExecutionStatus, NodeFailure


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a result; `state` and `implementations` are read when asked for."""

    result: CellResult
    _state: Callable[[str], Mapping[str, Any]]
    _implementations: Callable[[str], Mapping[str, str]]

    @property
    def combination(self) -> str:
        """The combination's canonical name."""
        return self.result.combination

    @property
    def case_id(self) -> str:
        """The case."""
        return self.result.case_id

    @property
    def repeat(self) -> int:
        """Which draw of the case, from 0."""
        return self.result.repeat

    @property
    def execution_id(self) -> str | None:
        """The execution that answers this cell; None if it has none."""
        return self.result.execution_id

    @property
    def status(self) -> ExecutionStatus:
        """How it ended."""
        return self.result.status

    @property
    def scores(self) -> Mapping[str, float | str]:
        """Metric -> number or label; a failed evaluator is not among them."""
        return self.result.scores

    @property
    def error(self) -> NodeFailure | None:
        """Why it failed: node, type, message, traceback."""
        return self.result.error

    @property
    def duration(self) -> float:
        """Seconds, the shared prefix included."""
        return self.result.duration

    @property
    def unshared_reason(self) -> str | None:
        """Why it did not share a prefix; None if it could."""
        return self.result.unshared_reason

    @property
    def stale(self) -> tuple[str, ...]:
        """What has changed since, if the cell was kept with `keep_stale`; empty if nothing has."""
        return self.result.stale

    @property
    def state(self) -> Mapping[str, Any]:
        """The values of the state where the execution ended; empty if it never began."""
        return self._state(self.execution_id) if self.execution_id else {}

    @property
    def implementations(self) -> Mapping[str, str]:
        """Node -> `variant@fingerprint` of the code that really ran."""
        return self._implementations(self.execution_id) if self.execution_id else {}


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The cells of one request, read back from the ledger.

    `node_executions` counts the node bodies that this call really ran: 0 if all was there.
    """

    report: BatchReport
    cells: list[Cell]
    node_executions: int
    plan: BatchPlan | None = None

    @property
    def batch_id(self) -> str:
        """The batch's id."""
        return self.report.batch.batch_id

    @property
    def status(self) -> str:
        """The batch's status."""
        return self.report.batch.status

    @property
    def cache_hits(self) -> int:
        """Visits of nodes behind these cells that the node result cache answered."""
        return self.report.cache_hits

    @property
    def best(self) -> str | None:
        """The combination with the best mean of the primary metric, among those with every cell
        scored; None without a primary metric."""
        return self.report.best

    @property
    def asked(self) -> list[Cell]:
        """The cells this call was asked for: those that its filter did not leave out."""
        plan = self.plan
        if plan is None:
            return list(self.cells)
        return [cell for cell in self.cells if plan.asked(cell.case_id, cell.combination)]

    def table(self) -> list[BatchTestResult]:
        """One row per combination: counts, and mean, spread and n of each metric."""
        return list(self.report.rows)
