"""A batch in Prefect's UI: one summary with table and fork tree, one progress bar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_logger

from wtb_prefect.application.plan_batch import BatchPlan
from wtb_prefect.application.read_results import BatchReport
from wtb_prefect.application.read_self_check import self_check_lines
from wtb_prefect.domain.batch_test import BatchTestResult, MetricSummary, VariantCombination
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork

logger = get_logger("wtb.artifacts")

_TREE_LEAVES = 60
"""Mermaid stays readable up to about this many leaves; larger trees are cut, and say so."""

_PROGRESS_SECONDS = 2.0
_ENDED = (
    ExecutionStatus.COMPLETED,
    ExecutionStatus.FAILED,
    ExecutionStatus.PAUSED,
    ExecutionStatus.CRASHED,
)


def publish_summary(report: BatchReport, plan: BatchPlan) -> None:
    """The batch's summary artifact, under a key of the batch: later runs are its versions."""
    create_markdown_artifact(
        markdown=summary_markdown(report, plan),
        key=artifact_key("batch", plan.batch_id),
        description=f"{report.batch.name}: {len(report.cells)} cells",
    )


def artifact_key(kind: str, batch_id: str) -> str:
    """Prefect takes lower-case letters, digits and dashes."""
    return f"wtb-{kind}-" + re.sub(r"[^a-z0-9]+", "-", batch_id.lower()).strip("-")


def summary_markdown(report: BatchReport, plan: BatchPlan) -> str:
    """Comparison table, counts and fork tree as Markdown with a Mermaid graph."""
    hits = report.cache_hits
    saved = report.unshared_node_executions - report.node_executions - hits
    cached = f" The node result cache answered {hits} visits of nodes." if hits else ""
    parts = [
        f"# {_plain(report.batch.name)}",
        f"Batch `{report.batch.batch_id}`: **{report.batch.status}**, {len(report.cells)} cells "
        f"({len(plan.combinations)} combinations x {len(plan.cases)} cases x "
        f"{plan.repeats} repeats).",
        f"Node bodies run: **{report.node_executions}**; one by one the same cells take "
        f"{report.unshared_node_executions}, so {saved} were saved by sharing prefixes.{cached}",
    ]
    if report.mocked:
        nodes = _plain(", ".join(report.mocked))
        parts.insert(1, f"**MOCKED: {nodes}**. These scores are not of the real workflow.")
    if checked := self_check_lines(report.self_check):
        parts.append("\n".join(f"- {_plain(line.strip())}" for line in checked))
    if report.retries:
        parts.append(f"Attempts after transient errors: **{report.retries}**.")
    if report.best is not None:
        parts.append(f"Best mean of the primary metric: **{_plain(report.best)}**.")
    if plan.unshared_reasons:
        parts.append("Prefixes were not shared: " + _plain("; ".join(plan.unshared_reasons)))
    parts += ["## Comparison", comparison_table(report.rows)]
    parts += ["## Fork tree of one case", fork_tree(plan)]
    failures = _failures(report)
    if failures:
        parts += ["## Failures", failures]
    return "\n\n".join(parts)


def comparison_table(rows: Sequence[BatchTestResult]) -> str:
    """One row per combination; every metric as mean, spread and n."""
    metrics = list(rows[0].metrics) if rows else []
    header = ["combination", *metrics, "cells", "s / cell"]
    lines = [_row(header), _row(["---"] * len(header))]
    for row in rows:
        seconds = "" if row.mean_duration is None else f"{row.mean_duration:.3f}"
        scores = [_score(row.metrics[metric]) for metric in metrics]
        lines.append(_row([row.combination.replace(",", ", "), *scores, _counts(row), seconds]))
    return "\n".join(lines)


def _counts(row: BatchTestResult) -> str:
    """What became of the cells; what did not happen is not listed."""
    counts = {
        "done": row.completed,
        "failed": row.failed,
        "crashed": row.crashed,
        "paused": row.paused,
        "missing": row.missing,
        "evaluator failures": row.evaluator_failures,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _score(summary: MetricSummary) -> str:
    if summary.mean is None:
        counted = ", ".join(f"{label}: {count}" for label, count in summary.labels.items())
        return counted or "no score"
    spread = "" if summary.spread is None else f" ± {summary.spread:.3f}"
    return f"{summary.mean:.3f}{spread} (n={summary.n})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def fork_tree(plan: BatchPlan) -> str:
    """Where the combinations part, in the order of the graph's nodes, as a Mermaid graph."""
    varying = [share.node for share in plan.shares if _varies(share.node, plan.combinations)]
    lines = ["```mermaid", "graph LR", '  root(("start"))']
    names: dict[tuple[tuple[str, str], ...], str] = {(): "root"}
    for combination in plan.combinations[:_TREE_LEAVES]:
        path: tuple[tuple[str, str], ...] = ()
        for node in varying:
            parent = names[path]
            path = (*path, (node, combination.variant_of(node)))
            if path not in names:
                names[path] = f"n{len(names)}"
                label = f"{node} = {combination.variant_of(node)}".replace('"', "'")
                lines.append(f'  {parent} --> {names[path]}["{label}"]')
    lines.append("```")
    if len(plan.combinations) > _TREE_LEAVES:
        lines.append(f"The first {_TREE_LEAVES} of {len(plan.combinations)} combinations.")
    return "\n".join(lines)


def _varies(node: str, combinations: Sequence[VariantCombination]) -> bool:
    return len({combination.variant_of(node) for combination in combinations}) > 1


def _failures(report: BatchReport, most: int = 20) -> str:
    failed = [cell for cell in report.cells if cell.error is not None]
    lines = [
        f"- `{_plain(cell.combination)}`, case `{_plain(cell.case_id)}`, repeat {cell.repeat}: "
        f"{_plain(str(cell.error))}"
        for cell in failed[:most]
    ]
    if len(failed) > most:
        lines.append(f"- and {len(failed) - most} more")
    return "\n".join(lines)


class ProgressArtifact:
    """Keeps a progress artifact up to date from the ledger while a batch runs.

    A server that stops answering costs the bar, never the batch.
    """

    def __init__(self, open_uow: OpenUnitOfWork, plan: BatchPlan) -> None:
        self._open_uow = open_uow
        self._plan = plan
        self._stop = Event()
        self._artifact: UUID | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        with optional("progress artifact not created"):
            created = create_progress_artifact(
                progress=self._percent(),
                key=artifact_key("progress", self._plan.batch_id),
                description=f"cells of batch {self._plan.batch_id}",
            )
            assert isinstance(created, UUID)
            self._artifact = created
            # The copied context carries Prefect's settings (the server's address) into the thread.
            self._thread = Thread(target=copy_context().run, args=(self._follow,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._update()

    def _follow(self) -> None:
        while not self._stop.wait(_PROGRESS_SECONDS):
            self._update()

    def _update(self) -> None:
        if self._artifact is None:
            return
        with optional("progress artifact not updated"):
            try:
                update_progress_artifact(artifact_id=self._artifact, progress=self._percent())
            except httpx.ConnectError:
                self._artifact = None  # the server is gone, and every call takes seconds to fail
                raise

    def _percent(self) -> float:
        with self._open_uow() as uow:
            counts = uow.cells.count(self._plan.batch_id)
        total = sum(counts.values())
        ended = sum(counts.get(status, 0) for status in _ENDED)
        return 100.0 * ended / total if total else 0.0


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Logs what Prefect's server could not take, and goes on: it is a view, not the record."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as exc:
        logger.warning("%s: %s: %s", what, type(exc).__name__, exc)
