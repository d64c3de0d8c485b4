"""What `--json` prints: the same facts as the tables, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wtb_prefect.application.plan_batch import BatchPlan
from wtb_prefect.application.read_results import BatchReport
from wtb_prefect.domain.batch_test import BatchTest, CellResult
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.terminal import unfinished


def plan_document(plan: BatchPlan) -> dict[str, Any]:
    """A plan with all its cells."""
    return {
        "batch_id": plan.batch_id,
        "project": plan.workflow.name,
        "combinations": [combination.name for combination in plan.combinations],
        "cases": [case.id for case in plan.cases],
        "repeats": plan.repeats,
        "counts": plan.counts,
        "to_run": sum(planned.is_wanted for planned in plan.cells),
        "mocked": [mock.node for mock in plan.mocks],
        "stale_reasons": plan.stale_reasons,
        "stale": plan.stale,
        "unshared_reasons": plan.unshared_reasons,
        "nodes": plan.shares,
        "cells": [
            {
                "cell_id": planned.cell.cell_id,
                "combination": planned.cell.combination,
                "case_id": planned.cell.case_id,
                "repeat": planned.cell.repeat,
                "state": planned.state,
                "changed": planned.changed,
            }
            for planned in plan.cells
        ],
    }


def report_document(report: BatchReport, *, cells: bool) -> dict[str, Any]:
    """A batch with its comparison and the cells that failed; with `cells`, all of them."""
    document: dict[str, Any] = {
        "batch_id": report.batch.batch_id,
        "project": report.batch.name,
        "status": report.batch.status,
        "runner": report.batch.runner,
        "mocked": report.mocked,
        "self_check": report.self_check,
        "best": report.best,
        "node_executions": report.node_executions,
        "cache_hits": report.cache_hits,
        "unshared_node_executions": report.unshared_node_executions,
        "retries": report.retries,
        "table": report.rows,
        "not_completed": [cell_document(cell) for cell in unfinished(report.cells)],
    }
    if cells:
        document["cells"] = [cell_document(cell) for cell in report.cells]
    return document


def cell_document(cell: CellResult) -> dict[str, Any]:
    """One cell."""
    return {
        "cell_id": cell.cell_id,
        "combination": cell.combination,
        "case_id": cell.case_id,
        "repeat": cell.repeat,
        "execution_id": cell.execution_id,
        "status": cell.status,
        "scores": cell.scores,
        "score_errors": cell.score_errors,
        "error": cell.error,
        "duration": cell.duration,
        "node_executions": cell.node_executions,
        "cache_hits": cell.cache_hits,
        "input_tokens": cell.input_tokens,
        "output_tokens": cell.output_tokens,
        "unshared_reason": cell.unshared_reason,
        "retries": cell.retries,
        "stale": cell.stale,
    }


def batch_document(
    batch: BatchTest, counts: Mapping[ExecutionStatus, int], *, owner_alive: bool | None
) -> dict[str, Any]:
    """One batch of a list; `owner_alive` is None where nobody owns it."""
    return {
        "batch_id": batch.batch_id,
        "project": batch.name,
        "status": batch.status,
        "cells": counts,
        "runner": batch.runner,
        "created_at": batch.created_at,
        "started_at": batch.started_at,
        "finished_at": batch.finished_at,
        "node_executions": batch.node_executions,
        "mocked": sorted(batch.request.get("mocks", {})),
        "owner": batch.owner,
        "owner_alive": owner_alive,
    }
