"""Reading a batch back: its cells with scores, and the comparison of its combinations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from wtb_prefect.application.choose_cells import CellChoice
from wtb_prefect.application.read_self_check import last_self_check
from wtb_prefect.domain.batch_test import (
    BatchCell,
    BatchTest,
    BatchTestResult,
    CellResult,
    MetricSummary,
    VariantCombination,
)
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.execution import Execution, ExecutionStatus, Inherited
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.errors import InvalidInputError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """A batch as the ledger has it: every cell, one row per combination, and the best of them.

    `node_executions` are the bodies recorded for the batch, `cache_hits` the visits that the node
    result cache answered instead, `unshared_node_executions` the bodies that the same cells would
    have cost one by one and without the cache, `retries` the attempts after a transient error.
    Where nodes are `mocked` nothing is called best. Of a `self_check` the last one: cells checked,
    and the differences found.
    """

    batch: BatchTest
    cells: tuple[CellResult, ...]
    rows: tuple[BatchTestResult, ...]
    best: str | None
    node_executions: int
    unshared_node_executions: int
    cache_hits: int = 0
    mocked: tuple[str, ...] = ()
    self_check: Mapping[str, Any] | None = None
    retries: int = 0


def find_batch(uow: UnitOfWork, workflow_id: str, batch_id: str | None) -> BatchTest:
    """The batch of an id (or of its unambiguous beginning), or the project's newest.

    Raises:
        NotFoundError: no such batch.
        InvalidInputError: several begin like that.
    """
    batches = uow.batch_tests.list(workflow_id)
    if batch_id is None and batches:
        return batches[0]
    asked = batch_id or "(the newest)"
    found = [batch for batch in batches if batch.batch_id.startswith(asked)]
    exact = [batch for batch in found if batch.batch_id == asked]
    if not found:
        raise NotFoundError("batch", asked, [batch.batch_id for batch in batches])
    if not exact and len(found) > 1:
        ids = ", ".join(sorted(batch.batch_id for batch in found)[:5])
        raise InvalidInputError(f"{len(found)} batches begin with {asked!r}: {ids}")
    return (exact or found)[0]


def read_report(
    open_uow: OpenUnitOfWork,
    batch_id: str,
    cell_ids: Collection[str] | None = None,
    choice: CellChoice | None = None,
) -> BatchReport:
    """The results of a batch, or of some of its cells. Raises `NotFoundError` for an unknown id."""
    with open_uow() as uow:
        batch = uow.batch_tests.get(batch_id)
        if batch is None:
            raise NotFoundError("batch", batch_id, [b.batch_id for b in uow.batch_tests.list()])
        cells = [c for c in uow.cells.list(batch_id) if cell_ids is None or c.cell_id in cell_ids]
        if choice is not None:
            cells = [cell for cell in cells if choice.has(cell.case_id, cell.combination)]
        lines = _lineages(uow, batch_id, cells)
        scores = uow.evaluation_results.list_many(sorted(lines))
        checked = last_self_check(uow, batch_id)
    mocked = tuple(sorted(batch.request.get("mocks", {})))
    metrics = _metrics(scores)
    order = _order(batch, cells)
    results = tuple(
        _cell_result(cell, lines, scores) for cell in _as_requested(batch, cells, order)
    )
    by_name: dict[str, list[CellResult]] = {name: [] for name in order}
    for result in results:
        by_name[result.combination].append(result)
    rows = tuple(_row(name, found, metrics) for name, found in by_name.items())
    ran = {execution.execution_id: execution for line in lines.values() for execution in line}
    return BatchReport(
        batch=batch,
        cells=results,
        rows=rows,
        best=None if mocked else _best(rows),
        node_executions=sum(execution.node_executions for execution in ran.values()),
        unshared_node_executions=sum(r.node_executions + r.cache_hits for r in results),
        cache_hits=sum(execution.cache_hits for execution in ran.values()),
        mocked=mocked,
        self_check=checked,
        retries=sum(execution.retries for execution in ran.values()),
    )


_NOTHING = Inherited()


def _lineages(
    uow: UnitOfWork, batch_id: str, cells: Sequence[BatchCell]
) -> dict[str, list[Execution]]:
    """Leaf id -> the leaf and its ancestors, as far as what they did is not `inherited`."""
    known = {run.execution_id: run for run in uow.executions.list(batch_id=batch_id)}
    wanted = {cell.execution_id for cell in cells if cell.execution_id is not None}
    missing = wanted - known.keys()
    while missing:  # adopted cells: their executions belong to another batch
        found = uow.executions.get_many(sorted(missing))
        known.update(found)
        parents = {e.lineage.parent_id for e in found.values() if e.lineage and not e.inherited}
        missing = parents - known.keys()
    lines: dict[str, list[Execution]] = {}
    for execution_id in wanted & known.keys():
        line = [known[execution_id]]
        while (
            (lineage := line[-1].lineage) is not None
            and line[-1].inherited is None
            and lineage.parent_id in known
        ):
            line.append(known[lineage.parent_id])
        lines[execution_id] = line
    return lines


def _cell_result(
    cell: BatchCell,
    lines: Mapping[str, list[Execution]],
    scores: Mapping[str, list[EvaluationResult]],
) -> CellResult:
    line = lines.get(cell.execution_id or "", [])
    results = scores.get(cell.execution_id or "", []) if cell.status.is_final else []
    first = (line[-1].inherited if line else None) or _NOTHING
    return CellResult(
        cell_id=cell.cell_id,
        combination=cell.combination,
        case_id=cell.case_id,
        repeat=cell.repeat,
        execution_id=cell.execution_id,
        status=cell.status,
        scores={r.metric: r.value for r in results if r.value is not None},
        score_errors={r.metric: r.error for r in results if r.error is not None},
        error=line[0].error if line else None,
        duration=first.duration + sum(e.duration for e in line),
        node_executions=first.node_executions + sum(e.node_executions for e in line),
        cache_hits=first.cache_hits + sum(e.cache_hits for e in line),
        input_tokens=first.input_tokens + sum(e.input_tokens for e in line),
        output_tokens=first.output_tokens + sum(e.output_tokens for e in line),
        retries=sum(e.retries for e in line),
        unshared_reason=cell.unshared_reason,
        stale=cell.stale,
    )


def _metrics(scores: Mapping[str, list[EvaluationResult]]) -> dict[str, EvaluationResult]:
    """Metric -> one of its results (for its goal), the primary one first."""
    found = {r.metric: r for results in scores.values() for r in results if r.error is None}
    return dict(sorted(found.items(), key=lambda item: (not item[1].primary, item[0])))


def _order(batch: BatchTest, cells: Sequence[BatchCell]) -> list[str]:
    """Combinations in the order of the request, then those of earlier requests."""
    requested = batch.request.get("combinations", [])
    from_request = [VariantCombination.of(choices).name for choices in requested]
    present = {cell.combination for cell in cells}
    rest = sorted(present - set(from_request))
    return [name for name in from_request if name in present] + rest


def _as_requested(
    batch: BatchTest, cells: Sequence[BatchCell], order: Sequence[str]
) -> list[BatchCell]:
    """By case and repeat as requested, then by combination."""
    cases = {case: place for place, case in enumerate(batch.request.get("cases", []))}
    places = {name: place for place, name in enumerate(order)}
    last = len(cases)
    return sorted(
        cells,
        key=lambda c: (cases.get(c.case_id, last), c.case_id, c.repeat, places[c.combination]),
    )


def _row(
    name: str, cells: Sequence[CellResult], metrics: Mapping[str, EvaluationResult]
) -> BatchTestResult:
    counts = Counter(cell.status for cell in cells)
    done = [cell for cell in cells if cell.status is ExecutionStatus.COMPLETED]
    known = (
        ExecutionStatus.COMPLETED,
        ExecutionStatus.FAILED,
        ExecutionStatus.CRASHED,
        ExecutionStatus.PAUSED,
    )
    return BatchTestResult(
        combination=name,
        metrics={metric: _summary(metric, done, spec) for metric, spec in metrics.items()},
        cells=len(cells),
        completed=len(done),
        failed=counts[ExecutionStatus.FAILED],
        crashed=counts[ExecutionStatus.CRASHED],
        paused=counts[ExecutionStatus.PAUSED],
        missing=len(cells) - sum(counts[status] for status in known),
        evaluator_failures=sum(len(cell.score_errors) for cell in done),
        mean_duration=fmean(cell.duration for cell in done) if done else None,
    )


def _summary(metric: str, cells: Sequence[CellResult], spec: EvaluationResult) -> MetricSummary:
    values = [cell.scores[metric] for cell in cells if metric in cell.scores]
    numbers = [value for value in values if not isinstance(value, str)]
    return MetricSummary(
        mean=fmean(numbers) if numbers else None,
        spread=stdev(numbers) if len(numbers) > 1 else None,
        n=len(values),
        goal=spec.goal,
        primary=spec.primary,
        labels=Counter(value for value in values if isinstance(value, str)),
    )


def _best(rows: Sequence[BatchTestResult]) -> str | None:
    """The combination with the best mean of the primary metric; of equals, the first requested.

    None without a primary metric. Only complete rows count: one with failed, crashed or missing
    cells has a mean over easier cases.
    """
    best: tuple[float, str] | None = None
    for row in rows:
        for summary in row.metrics.values():
            if summary.primary and summary.mean is not None and summary.n == row.cells:
                value = summary.mean if summary.goal == "max" else -summary.mean
                if best is None or value > best[0]:
                    best = (value, row.combination)
    return best[1] if best else None
