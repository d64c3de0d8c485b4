"""`wtb plan`, `wtb run` and `wtb demo`."""

from __future__ import annotations

import importlib.util
import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wtb_prefect import terminal
from wtb_prefect.application.matrix import Matrix
from wtb_prefect.application.plan_batch import BatchPlan
from wtb_prefect.application.read_self_check import self_check_lines
from wtb_prefect.commands.choosing import filter_of
from wtb_prefect.commands.control import run_once
from wtb_prefect.commands.documents import plan_document, report_document
from wtb_prefect.commands.mocking import mocks_of
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.progress import BatchProgress, Standing
from wtb_prefect.commands.projects import load_project
from wtb_prefect.commands.run_settings import run_settings
from wtb_prefect.commands.starter import write_starter
from wtb_prefect.domain.batch_test import BatchStatus
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.errors import InvalidInputError, NotFoundError, WTBError
from wtb_prefect.infrastructure.event_loop import TERMINATED
from wtb_prefect.infrastructure.logs.capture import silenced
from wtb_prefect.sdk.batch_result import BatchResult
from wtb_prefect.sdk.test_bench import RUNNERS, TestBench

OnPlan = Callable[[BatchPlan], None]
RunBatch = Callable[[TestBench, OnPlan], BatchResult]

SHOWN_FAILURES = 5
NOT_RUN = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)
"""What cells are that neither ran nor were answered."""

DEMO_MATRIX: Matrix = {"chunk": "*", "retrieve": "*", "rerank": "*"}


def plan(args: Namespace, out: Output) -> int:
    """Says what a run would do; runs nothing."""
    _runner(args.runner)
    with TestBench(load_project(args.project)) as bench:
        found = bench.plan(
            matrix=_matrix(args),
            cases=_cases(args),
            repeats=args.repeats,
            share_prefixes=args.share,
            batch_id=args.batch_id,
            mocks=mocks_of(args),
            only=filter_of(args),
            **run_settings(args),
        )
    for line in terminal.plan_lines(found):
        out.say(line)
    out.show(terminal.plan_table(found))
    out.data(plan_document(found))
    return 0


def run(args: Namespace, out: Output) -> int:
    """Runs what is missing of a batch test and compares its combinations; with `--state` the
    workflow once."""
    if args.state is not None:
        if args.cases is not None:
            raise InvalidInputError("--state is for one execution, --cases for a batch: give one")
        return run_once(args, out)
    _runner(args.runner)
    request: dict[str, Any] = {
        "matrix": _matrix(args),
        "cases": _cases(args),
        "mocks": mocks_of(args),
        "only": filter_of(args),
    }

    def call(bench: TestBench, on_plan: OnPlan) -> BatchResult:
        return bench.batch(
            **request,
            repeats=args.repeats,
            runner=args.runner,
            share_prefixes=args.share,
            max_parallel=args.max_parallel,
            batch_id=args.batch_id,
            on_plan=on_plan,
            **run_settings(args),
        )

    return _run_shown(call, args, out)


def branch_all(args: Namespace, out: Output) -> int:
    """Forks every cell of a batch at a node, with another variant of it."""
    _runner(args.runner)
    node, _, named = "".join(args.variant).rpartition("=")
    if len(args.variant) != 1 or args.node is None or node not in ("", args.node):
        raise InvalidInputError("--all-cells BATCH goes with --node NODE and one --variant NAME")

    def call(bench: TestBench, on_plan: OnPlan) -> BatchResult:
        return bench.branch_all(
            args.all_cells,
            args.node,
            named,
            runner=args.runner,
            max_parallel=args.max_parallel,
            new_batch_id=args.batch_id,
            on_plan=on_plan,
        )

    return _run_shown(call, args, out)


def _run_shown(call: RunBatch, args: Namespace, out: Output) -> int:
    """Runs a batch with its progress and shows what came of it; gives the exit status."""
    # Prefect's own lines would break the progress display; its UI still gets them all.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    plans: list[BatchPlan] = []
    with TestBench(load_project(args.project)) as bench:
        try:
            result = _watched(bench, call, out, plans)
            _show(result, args, out)
        except (KeyboardInterrupt, SystemExit) as exc:
            out.note(_interrupted(bench, plans))
            return 130 if isinstance(exc, KeyboardInterrupt) else TERMINATED
    failed = terminal.unfinished(cell.result for cell in result.asked) or _differs(result, args)
    return 1 if failed else 0


def _differs(result: BatchResult, args: Namespace) -> bool:
    found = result.report.self_check if getattr(args, "self_check", 0) else None
    return found is not None and found["equal"] < found["checked"]


def _watched(bench: TestBench, call: RunBatch, out: Output, plans: list[BatchPlan]) -> BatchResult:
    """The run with its progress; `plans` gets the plan as soon as there is one."""
    # Prints of nodes would break the progress display; `wtb logs` has them.
    with BatchProgress(out.notes) as progress, silenced():

        def on_plan(made: BatchPlan) -> None:
            plans.append(made)
            for line in terminal.plan_lines(made):
                out.say(line)
            progress.start(made, bench.session.open_uow)

        return call(bench, on_plan)


def demo(args: Namespace, out: Output) -> int:
    """Makes the starter project if it is not there, and runs all of its combinations."""
    if importlib.util.find_spec("rank_bm25") is None:
        raise InvalidInputError("the demo needs rank_bm25: pip install 'wtb-prefect[demo]'")
    folder = Path(args.folder)
    if not (folder / "project.py").is_file() or not (folder / "base_workspace").is_dir():
        _runner(args.runner)
        written = write_starter(folder)
        out.say(f"{folder}: {', '.join(written)}")
    args.project = f"{folder / 'project.py'}:project"

    def call(bench: TestBench, on_plan: OnPlan) -> BatchResult:
        return bench.batch(
            matrix=DEMO_MATRIX,
            cases=str(folder / "questions.jsonl"),
            runner=args.runner,
            max_parallel=args.max_parallel,
            on_plan=on_plan,
        )

    return _run_shown(call, args, out)


def _show(result: BatchResult, args: Namespace, out: Output) -> None:
    report = result.report
    out.say()
    out.show(terminal.comparison_table(report, out.text))
    if best := terminal.best_line(report):
        out.say(best)
    for line in self_check_lines(report.self_check):
        out.say(line)
    out.say(f"{terminal.bodies_line(report)}; {result.node_executions} run now")
    failed = terminal.unfinished(cell.result for cell in result.asked)
    for cell in failed[:SHOWN_FAILURES]:
        line = terminal.cell_line(cell)
        out.say(f"{cell.status}: {cell.combination} on {cell.case_id}: {line}", style="red")
    if len(failed) > SHOWN_FAILURES:
        out.say(f"and {len(failed) - SHOWN_FAILURES} cells more that are not completed")
    if result.status == BatchStatus.INTERRUPTED:
        left = sum(cell.status in NOT_RUN for cell in result.asked)
        out.say(f"stopped at the first failed cell: {left} cells not run; run again to go on")
    asked = {cell.result.cell_id for cell in result.asked}
    others = (cell for cell in result.cells if cell.result.cell_id not in asked)
    if left := sum(cell.status in NOT_RUN for cell in others):
        out.say(f"{left} cells were left out by the filter: without it the same command runs them")
    for line in _next(result, args.project):
        out.say(line)
    out.data({**report_document(report, cells=args.cells_too), "run_now": result.node_executions})


def _next(result: BatchResult, project: str) -> list[str]:
    lines = [f"every cell:   wtb results {project} {result.batch_id} --cells"]
    asked = [cell.result for cell in result.asked]
    cells = terminal.unfinished(asked) or asked
    shown = next((cell.execution_id for cell in cells if cell.execution_id), None)
    if shown is not None:
        lines.append(f"one of them:  wtb history {project} {shown[:13]}")
        lines.append(f"its prints:   wtb logs {project} {shown[:13]}")
    return lines


def _interrupted(bench: TestBench, plans: list[BatchPlan]) -> str:
    again = "run the same command again to go on"
    if not plans:
        return f"interrupted before anything ran: {again}"
    made = plans[-1]
    try:
        now = Standing.read(bench.session.open_uow, made.batch_id)
    except WTBError as exc:
        return f"interrupted: batch {made.batch_id} is in the ledger ({exc}): {again}"
    return (
        f"interrupted: batch {made.batch_id} has {now.ended} of {len(made.cells)} cells and "
        f"{now.bodies} node bodies saved: {again}"
    )


def _runner(asked: str) -> None:
    """Raises before anything is imported or written for a run that cannot be."""
    if asked not in RUNNERS:
        raise NotFoundError("runner", asked, RUNNERS)
    needed = {"ray": ("prefect", "ray", "prefect_ray"), "threads": ("prefect",)}
    for package in needed.get(asked, ()):
        if importlib.util.find_spec(package) is None:
            raise InvalidInputError(
                f"runner {asked!r} needs {package}, which is not installed: "
                "pip install wtb-prefect, or use --runner inline"
            )


def _cases(args: Namespace) -> str:
    if args.cases is None:
        raise InvalidInputError("no cases: give --cases FILE (.jsonl or .csv)")
    return str(args.cases)


def _matrix(args: Namespace) -> Matrix | None:
    """From `--matrix` or from `--variant`, which are two ways to say the same."""
    if args.matrix is not None and args.variant:
        raise InvalidInputError("give --matrix or --variant, not both")
    if args.variant:
        return dict(_axes(args.variant))
    if args.matrix is None:
        return None
    matrix: Matrix = _json(_matrix_text(args.matrix))
    if matrix is None:
        raise InvalidInputError("--matrix is null; leave it out to run the baseline alone")
    return matrix


def _axes(texts: list[str]) -> dict[str, str | list[str]]:
    axes: dict[str, str | list[str]] = {}
    for text in texts:
        node, equals, names = text.partition("=")
        if not equals or not node:
            raise InvalidInputError(f"--variant is node=a,b or node=*, not {text!r}")
        if node in axes:
            raise InvalidInputError(f"--variant names node {node!r} twice")
        chosen = [name.strip() for name in names.split(",") if name.strip()]
        axes[node] = "*" if chosen == ["*"] else chosen
    return axes


def _matrix_text(given: str) -> str:
    if not given.startswith("@"):
        return given
    file = Path(given[1:])
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"the matrix file {file} cannot be read: {exc}") from exc


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(
            f"""--matrix is not JSON ({exc}); for example '{{"retrieve": ["original", "bm25"]}}'"""
        ) from exc


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python's own reader would silently keep the last of two.
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(f"the matrix names node {name!r} twice")
    return dict(pairs)
