"""Going back in a single execution, and branching from it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from benchmarks.measures import Figure
from wtb_prefect import TestBench, WorkflowProject

STEPS = 20
LIMIT_MS = 30.0


class _State(TypedDict):
    text: str
    count: int


def line_of_20_steps() -> StateGraph[Any, Any, Any, Any]:
    def work(state: _State) -> dict[str, int]:
        return {"count": state["count"] + 1}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(_State)
    names = [f"n{number}" for number in range(STEPS)]
    for name in names:
        builder.add_node(name, work)
    builder.add_edge(START, names[0])
    for pair in itertools.pairwise(names):
        builder.add_edge(*pair)
    return builder


def going_back(folder: Path, quick: bool) -> list[Figure]:
    """Rolling back half of 20 steps, and branching before the last one, which it runs; medians."""
    project = WorkflowProject(
        "line", line_of_20_steps, db_path=folder / "w.db", output_dir=folder / "out"
    )
    times = 5 if quick else 30
    with TestBench(project) as bench:
        runs = [
            bench.run(initial_state={"text": "x" * 2048, "count": 0}).execution_id
            for _ in range(times + 1)
        ]
        points = {run: [p.checkpoint_id for p in bench.history(run)] for run in runs}
        bench.branch(runs[-1], points[runs[-1]][-2])  # compiles once
        branched = [_ms(lambda run=run: bench.branch(run, points[run][-2])) for run in runs[:-1]]
        back = [_ms(lambda run=run: bench.rollback(run, points[run][11])) for run in runs[:-1]]
    return [
        _figure("rolling back 10 of 20 steps, 2 KB state", back),
        _figure("a branch before the last of 20 steps, 2 KB state, that step run", branched),
    ]


def _ms(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def _figure(what: str, taken: list[float]) -> Figure:
    median = statistics.median(taken)
    return Figure(
        what=what,
        measured=f"{median:.1f} ms",
        target=f"at most {LIMIT_MS:.0f} ms",
        met=median <= LIMIT_MS,
        raw={"median_ms": median},
    )
