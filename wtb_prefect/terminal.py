"""Plans, comparisons and histories as tables and lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.application.disk_use import DiskUse
from wtb_prefect.application.plan_batch import BatchPlan
from wtb_prefect.application.read_results import BatchReport
from wtb_prefect.application.staleness import StaleKind
from wtb_prefect.domain.batch_test import BatchTestResult, CellResult, MetricSummary
from wtb_prefect.domain.checkpoint import StoreSpace
from wtb_prefect.domain.execution import ExecutionStatus

_STYLES = {
    "completed": "green",
    "failed": "red",
    "crashed": "red",
    "interrupted": "yellow",
    "partial": "yellow",
    "deleting": "yellow",
    "paused": "yellow",
    "running": "cyan",
}

_ANY_WIDTH = 10_000
_SHOWN_KINDS = 5


def make_table(*headers: str) -> Table:
    """A light table whose cells fold instead of being cut."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def plan_lines(plan: BatchPlan) -> list[str]:
    """A plan in a few lines."""
    sizes = (len(plan.combinations), len(plan.cases), plan.repeats)
    words = ("combination", "case", "repeat")
    product = " x ".join(_number(n, word) for n, word in zip(sizes, words, strict=True))
    lines = [
        f"batch {plan.batch_id} of {plan.workflow.name}",
        f"  {product} = {_number(len(plan.cells), 'cell')}: {_states(plan)}",
    ]
    if plan.mocks:
        lines.append(f"  MOCKED: {', '.join(mock.node for mock in plan.mocks)}")
    if plan.remote:
        nodes = ", ".join(map(str, plan.remote))
        lines.append(f"  on Ray as tasks of their own, elsewhere in place: {nodes}")
    lines += [_stale(kind) for kind in plan.stale[:_SHOWN_KINDS]]
    if (more := len(plan.stale) - _SHOWN_KINDS) > 0:
        lines.append(f"  and {_number(more, 'more kind')} of stale cells (--json lists all)")
    if plan.counts[CellState.FAILED]:
        left_alone = "are not run again until their code or case changes (or with --retry-failed)"
        what = "go on from their last record" if plan.options.retry_failed else left_alone
        lines.append(f"  failed cells {what}")
    if plan.counts[CellState.PAUSED]:
        lines.append("  paused cells wait for an answer: add it to the case's answers")
    return [*lines, *_sharing(plan)]


def plan_table(plan: BatchPlan) -> Table:
    """How often each node runs for a case."""
    table = make_table("node", "runs per case", "unshared")
    for share in plan.shares:
        table.add_row(Text(share.node), str(share.runs), str(share.unshared_runs))
    return table


def comparison_table(report: BatchReport, console: Console) -> Table:
    """One row per combination; names are broken at commas where the terminal is narrow."""
    table = _comparison(report, broken=False)
    wide = console.options.update(max_width=_ANY_WIDTH)
    fits = Measurement.get(console, wide, table).maximum <= console.width
    return table if fits else _comparison(report, broken=True)


def cells_table(cells: Sequence[CellResult]) -> Table:
    """One row per cell, with its scores and the line of its error."""
    table = make_table("combination", "case", "repeat", "status", "execution", "scores or error")
    for cell in cells:
        table.add_row(
            Text(cell.combination),
            Text(cell.case_id),
            str(cell.repeat),
            status_text(cell.status, "stale" if cell.stale else ""),
            (cell.execution_id or "")[:13],
            Text(cell_line(cell)),
        )
    return table


def cell_line(cell: CellResult) -> str:
    """Scores of a cell, or why it has none, in one line."""
    retried = [f"({retries_text(cell.retries)})"] if cell.retries else []
    if cell.error is not None:
        return "  ".join([one_line(str(cell.error)), *retried])
    scores = [f"{metric}={_score(value)}" for metric, value in cell.scores.items()]
    errors = [f"{metric}: {one_line(text)}" for metric, text in cell.score_errors.items()]
    stale = [f"changed since: {', '.join(cell.stale)}"] if cell.stale else []
    return "  ".join(scores + errors + stale + retried)


def retries_text(retries: int) -> str:
    """`1 retry`, `2 retries`."""
    return "1 retry" if retries == 1 else f"{retries} retries"


def one_line(text: str, limit: int = 200) -> str:
    """A text without line breaks, shortened."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else f"{joined[: limit - 3]}..."


def status_text(status: str, note: str = "") -> Text:
    """A status in its colour, with a note on it."""
    shown = f"{status} ({note})" if note else str(status)
    return Text(shown, style=_STYLES.get(str(status), ""))


def when(moment: datetime | None) -> str:
    """A moment in local time; empty for none."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def bytes_text(size: int) -> str:
    """`1.3 MB`: powers of 1000, as disks are sold and `df -H` counts."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 99.5 or unit == "bytes" else f"{value:.1f} {unit}"


def disk_columns(use: DiskUse) -> tuple[str, ...]:
    """What a batch takes, in the order of the table."""
    return tuple(map(bytes_text, (use.checkpoints, use.files, use.workspaces, use.logs)))


def space_line(space: StoreSpace) -> str:
    """The checkpoint file as it lies on disk."""
    free = f", {bytes_text(space.free)} of it free for what comes" if space.free else ""
    return f"the checkpoint file takes {bytes_text(space.on_disk)}{free}"


def counts_line(counts: Iterable[tuple[str, int]]) -> str:
    """`12 completed, 1 failed`."""
    return ", ".join(f"{n} {name}" for name, n in counts if n) or "none"


def bodies_line(report: BatchReport) -> str:
    """Node bodies of a batch against what its cells would have cost one by one."""
    ran, alone, hits = report.node_executions, report.unshared_node_executions, report.cache_hits
    cached = f" ({hits} more answered by the node result cache)" if hits else ""
    saved = f", {1 - ran / alone:.0%} saved" if alone > ran else ""
    by = " by sharing" if saved and not hits else ""
    retried = f"; {retries_text(report.retries)} after transient errors" if report.retries else ""
    return f"node bodies of the batch: {ran}{cached}, against {alone} unshared{saved}{by}{retried}"


def headline(report: BatchReport) -> str | None:
    """What has to be known before any number is read; None where there is nothing."""
    return f"MOCKED: {', '.join(report.mocked)}" if report.mocked else None


def best_line(report: BatchReport) -> str | None:
    """The best combination and by what; None where none can be named."""
    if report.mocked:
        return f"no best combination: {', '.join(report.mocked)} did not really run"
    for row in report.rows:
        for metric, summary in row.metrics.items():
            if row.combination == report.best and summary.primary:
                better = "more" if summary.goal == "max" else "less"
                return f"best: {row.combination} ({metric} {_mean(summary)}, {better} is better)"
    return None


def _number(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _stale(kind: StaleKind) -> str:
    changed = f"{', '.join(kind.changed)} ({_number(kind.cells, 'cell')})"
    if kind.kept:
        return f"  stale, and kept as it is, because these changed: {changed}"
    return f"  stale because these changed: {changed}: {kind.again}"


def _states(plan: BatchPlan) -> str:
    words = {
        CellState.DONE: "done",
        CellState.ADOPTED: "answered by other batches",
        CellState.FAILED: "failed",
        CellState.PAUSED: "paused",
        CellState.STALE: "stale",
        CellState.KEPT: "stale but kept",
        CellState.NEW: "new",
        CellState.LEFT_OUT: "left out by the filter",
    }
    return counts_line((word, plan.counts[state]) for state, word in words.items())


def _sharing(plan: BatchPlan) -> list[str]:
    if plan.unshared_reasons:
        return [f"  nothing is shared: {reason}" for reason in plan.unshared_reasons]
    runs = sum(share.runs for share in plan.shares)
    unshared = sum(share.unshared_runs for share in plan.shares)
    return [f"  node bodies for a case, each visited once: {runs} (unshared {unshared})"]


def _comparison(report: BatchReport, *, broken: bool) -> Table:
    table = make_table("", "combination")
    table.title = headline(report)
    if broken:
        parts = (part for row in report.rows for part in _broken(row.combination).split("\n"))
        table.columns[1].min_width = max(map(len, parts), default=0)
        table.columns[1].no_wrap = True
    metrics = list(report.rows[0].metrics) if report.rows else []
    for metric in metrics:
        arrow = "max" if report.rows[0].metrics[metric].goal == "max" else "min"
        table.add_column(f"{metric}\n{arrow}, mean ± sd (n)", overflow="fold")
    counted = _counted(report.rows)
    for name in counted:
        table.add_column(name.replace(" ", "\n"), justify="right", overflow="fold")
    table.add_column("seconds", justify="right")
    for row in report.rows:
        best = row.combination == report.best
        seconds = "" if row.mean_duration is None else f"{row.mean_duration:.2f}"
        table.add_row(
            "*" if best else "",
            Text(_broken(row.combination) if broken else row.combination),
            *(Text(_summary(row.metrics[metric])) for metric in metrics),
            *(str(counts_of(row)[name]) for name in counted),
            seconds,
            style="bold green" if best else "",
        )
    return table


def counts_of(row: BatchTestResult) -> dict[str, int]:
    """The cells of a combination by how they ended, and its evaluator failures."""
    return {
        "done": row.completed,
        "failed": row.failed,
        "crashed": row.crashed,
        "paused": row.paused,
        "missing": row.missing,
        "evaluator failures": row.evaluator_failures,
    }


def _counted(rows: Sequence[BatchTestResult]) -> list[str]:
    """`done`, and the other counts that are not zero everywhere."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(counts_of(row))
    return ["done", *(name for name in total if total[name] and name != "done")]


def _broken(name: str) -> str:
    return name.replace(",", ",\n")


def _summary(summary: MetricSummary) -> str:
    if summary.labels:
        labels = ", ".join(f"{label} {n}" for label, n in sorted(summary.labels.items()))
        return f"{labels} ({summary.n})"
    if summary.mean is None:
        return f"- ({summary.n})"
    spread = "" if summary.spread is None else f" ± {summary.spread:.3f}"
    return f"{_mean(summary)}{spread} ({summary.n})"


def _mean(summary: MetricSummary) -> str:
    return "-" if summary.mean is None else _score(summary.mean)


def _score(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


def unfinished(cells: Iterable[CellResult]) -> list[CellResult]:
    """The cells that have no success."""
    return [cell for cell in cells if cell.status is not ExecutionStatus.COMPLETED]
