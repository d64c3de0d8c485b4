"""All figures in one command: `make bench` (or `python -m benchmarks --quick`).

Every figure is a ratio or a count taken in one run on one machine; both sides run alternately in
this process, on the same disk. Prints a table and writes `benchmarks/results.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import cell_costs, control, file_operations, measures, outbox, planning
from benchmarks.measures import Figure

MEASURES: tuple[Callable[[Path, bool], list[Figure]], ...] = (
    measures.shared_prefix_counts,
    measures.wall_clock,
    cell_costs.unshared_overhead,
    cell_costs.many_in_flight,
    cell_costs.cost_by_size,
    measures.fork_cost,
    control.going_back,
    outbox.verification,
    outbox.verification_on_postgres,
    file_operations.first_commit,
    file_operations.later_commits,
    file_operations.fork_and_restore,
    file_operations.overlay_fork,
    file_operations.tracking_cost,
    measures.finished_batch_again,
    measures.reading_commands,
    planning.ten_thousand_cells,
    planning.after_an_edit,
    measures.task_runs_on_ray,
)


def main() -> int:
    """Runs the measures asked for; exit status 1 if a figure misses its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, rough figures")
    parser.add_argument("--only", help="measures whose name contains this")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    for measure in MEASURES:
        if arguments.only and arguments.only not in measure.__name__:
            continue
        print(f"measuring {measure.__name__} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="wtb-bench-") as folder:
            figures += measure(Path(folder), arguments.quick)
    print(table(figures))
    if not arguments.only:
        write(figures, quick=arguments.quick)
    return 0 if all(figure.met for figure in figures) else 1


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| what | measured | must reach | |", "|---|---|---|---|"]
    for figure in figures:
        met = "met" if figure.met else "MISSED"
        lines.append(f"| {figure.what} | {figure.measured} | {figure.target} | {met} |")
    return "\n".join(lines)


def write(figures: list[Figure], *, quick: bool) -> None:
    """Keeps the figures beside the code that took them."""
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "quick": quick}
    rows = [
        {"what": f.what, "measured": f.measured, "target": f.target, "met": f.met, "raw": f.raw}
        for f in figures
    ]
    path = Path(__file__).with_name("results.json")
    path.write_text(json.dumps({"machine": machine, "figures": rows}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
