"""What planning many cells costs, and what an edit costs afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import workflows
from benchmarks.measures import Figure
from wtb_prefect import TestBench, WorkflowProject


def ten_thousand_cells(folder: Path, quick: bool) -> list[Figure]:
    """Time and memory of a plan, for many combinations and for many cases."""
    figures = []
    for combinations, cases in ((100, 10), (10, 100)) if quick else ((100, 100), (10, 1000)):
        name = f"{combinations}x{cases}"
        (folder / name).mkdir()
        script = Path(__file__).with_name("plan_cells.py")
        root = str(Path(__file__).parent.parent)
        done = subprocess.run(
            [sys.executable, str(script), str(folder / name), str(combinations), str(cases)],
            env={**os.environ, "PYTHONPATH": root},
            check=True,
            capture_output=True,
            text=True,
        )
        new, finished, peak, cells = (float(word) for word in done.stdout.split())
        figures.append(
            Figure(
                f"plan of {cells:.0f} cells, {combinations} combinations x {cases} cases, in a "
                "process of its own",
                f"{new:.2f} s new, {finished:.2f} s done, {peak:.0f} MB at most",
                "under 3 s and 400 MB",
                max(new, finished) < 3 and peak < 400,
                {"new_s": new, "done_s": finished, "peak_mb": peak},
            )
        )
    return figures


def after_an_edit(folder: Path, quick: bool) -> list[Figure]:
    """The last of six waiting nodes is edited: the same request, against running it all."""
    count = 5 if quick else 50
    whole, bodies = _timed(folder, count, "first")
    again, few = _timed(folder, count, "edited")
    return [
        Figure(
            f"the last of 6 nodes of 50 ms edited, {count} cells run again",
            f"{few} node bodies, {again / whole:.2f} of the time ({again:.1f} s against "
            f"{whole:.1f} s)",
            f"exactly {count} of {6 * count} node bodies",
            (few, bodies) == (count, 6 * count),
            {"again_s": again, "whole_s": whole},
        )
    ]


def _timed(folder: Path, count: int, last: str) -> tuple[float, int]:
    def graph() -> Any:
        nodes = [workflows.waiting_node(f"n{n}", 0.05) for n in range(workflows.NODES - 1)]
        return workflows.line([*nodes, workflows.waiting_node(last, 0.05)])

    project = WorkflowProject("edit", graph, db_path=folder / "e.db", output_dir=folder / "e")
    with TestBench(project) as bench:
        assert bench.session
        began = time.perf_counter()
        result = bench.batch(cases=workflows.cases(count), runner="inline")
        return time.perf_counter() - began, result.node_executions
