"""What is measured, each against its floor or its plain counterpart in the same run."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from benchmarks import workflows
from wtb_prefect import TestBench, WorkflowProject

MATRIX = {f"n{number}": "*" for number in workflows.VARIED}
IN_FLIGHT = 4


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    measured: str
    target: str
    met: bool
    raw: dict[str, float] = field(default_factory=dict)


def _project(folder: Path, name: str, seconds: float) -> WorkflowProject:
    project = WorkflowProject(
        name,
        lambda: workflows.waiting_line(seconds),
        db_path=folder / f"{name}.db",
        output_dir=folder / name,
    )
    for node in MATRIX:
        for variant in "ab":
            project.variant(node, variant, workflows.waiting_node(f"{node}{variant}", seconds))
    return project


def shared_prefix_counts(folder: Path, quick: bool) -> list[Figure]:
    """Node bodies of a 3 x 3 x 3 matrix at nodes 4 to 6 of a line of six."""
    with TestBench(_project(folder, "counts", 0.0)) as bench:
        shared = bench.batch(MATRIX, workflows.cases(1), runner="inline")
        alone = bench.batch(
            MATRIX, workflows.cases(1), runner="inline", share_prefixes=False, batch_id="alone"
        )
    counts = {"shared": shared.node_executions, "unshared": alone.node_executions}
    return [
        Figure(
            "node bodies per case, 6-node line, 3x3x3 variants at nodes 4-6",
            f"{shared.node_executions} (unshared {alone.node_executions})",
            "exactly 42 (unshared 162)",
            counts == {"shared": 42, "unshared": 162},
            counts,
        )
    ]


def wall_clock(folder: Path, quick: bool) -> list[Figure]:
    """The same with nodes of 50 ms, against a loop over plain LangGraph; four in flight each."""
    count = 3 if quick else 20
    plain = asyncio.run(_plain_matrix(folder / "plain.db", count))
    with TestBench(_project(folder, "wall", 0.05)) as bench:
        bench.session.engine.describe()
        began = time.perf_counter()
        result = bench.batch(
            MATRIX, workflows.cases(count), runner="inline", max_parallel=IN_FLIGHT
        )
        ours = time.perf_counter() - began
    assert result.node_executions == 42 * count
    ratio = plain / ours
    return [
        Figure(
            f"that with 50 ms nodes, {count} cases, {IN_FLIGHT} in flight, against plain LangGraph",
            f"{ratio:.2f} times faster ({ours:.1f} s against {plain:.1f} s)",
            "at least 3.2 times faster (ideal 3.86)",
            ratio >= 3.2,
            {"ours_s": ours, "plain_s": plain},
        )
    ]


async def _plain_matrix(path: Path, count: int) -> float:
    """Each combination of each case from the start, as one would write it by hand."""
    names = ("", "a", "b")
    combinations = [(x, y, z) for x in names for y in names for z in names]
    gate = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.setup()
        graphs = []
        for combination in combinations:
            nodes = [workflows.waiting_node(f"n{i}", 0.05) for i in range(3)]
            nodes += [
                workflows.waiting_node(f"n{i}{v}", 0.05)
                for i, v in zip(workflows.VARIED, combination, strict=True)
            ]
            graphs.append(workflows.line(nodes).compile(checkpointer=saver))

        async def one(graph: Any, thread: str) -> None:
            config = {"configurable": {"thread_id": thread}}
            async with gate:
                await graph.ainvoke({"log": [], "payload": "x"}, config, durability="sync")

        began = time.perf_counter()
        await asyncio.gather(
            *(one(g, f"{case}-{i}") for case in range(count) for i, g in enumerate(graphs))
        )
        return time.perf_counter() - began


def fork_cost(folder: Path, quick: bool) -> list[Figure]:
    """Copying a head checkpoint into a new thread, in the SQLite store."""
    figures = []
    for label, size, target in (("2 KB", 2_000, 2.0), ("1 MB", 1_000_000, 15.0)):
        median = _fork_median(folder / f"{size}.db", size, 20 if quick else 100)
        figures.append(
            Figure(
                f"a fork, {label} state, SQLite",
                f"{median:.2f} ms",
                f"under {target:.0f} ms",
                median < target,
                {"median_ms": median},
            )
        )
    return figures


def _fork_median(path: Path, size: int, times: int) -> float:
    from wtb_prefect.infrastructure.checkpoints.langgraph_store import SqliteCheckpointStore

    store = SqliteCheckpointStore(path)
    graph = workflows.trivial_line().compile(checkpointer=store.saver)
    config: Any = {"configurable": {"thread_id": "source"}}
    graph.invoke({"log": [], "payload": "x" * size}, config, durability="sync")
    head = store.latest("source")
    assert head is not None
    taken = _timed(times, lambda n: store.fork("source", head.checkpoint_id, f"copy-{n}"))
    store.close()
    return statistics.median(taken) * 1e3


def _timed(times: int, action: Callable[[int], object]) -> list[float]:
    taken = []
    for number in range(times):
        began = time.perf_counter()
        action(number)
        taken.append(time.perf_counter() - began)
    return taken


def finished_batch_again(folder: Path, quick: bool) -> list[Figure]:
    """The same request once more, when all of it is done."""
    count = 100 if quick else 1000
    project = WorkflowProject(
        "again", workflows.trivial_line, db_path=folder / "a.db", output_dir=folder / "a"
    )
    with TestBench(project) as bench:
        cases = workflows.cases(count)
        bench.batch(cases=cases, runner="inline")
        began = time.perf_counter()
        again = bench.batch(cases=cases, runner="inline")
        seconds = time.perf_counter() - began
    return [
        Figure(
            f"second run of a finished {count}-cell batch",
            f"{seconds:.2f} s, {again.node_executions} node bodies",
            "under 2 s, 0 node bodies",
            seconds < 2 and again.node_executions == 0,
            {"seconds": seconds},
        )
    ]


_PROJECT_FILE = """
from benchmarks.workflows import trivial_line
from wtb_prefect import WorkflowProject
project = WorkflowProject("reading", trivial_line, db_path="r.db", output_dir="r")
"""


def reading_commands(folder: Path, quick: bool) -> list[Figure]:
    """`wtb results` and `wtb list` of a 1,000-cell batch, as whole processes."""
    (folder / "bench_reading.py").write_text(_PROJECT_FILE)
    count = 100 if quick else 1000
    project = WorkflowProject(
        "reading", workflows.trivial_line, db_path=folder / "r.db", output_dir=folder / "r"
    )
    with TestBench(project) as bench:
        bench.batch(cases=workflows.cases(count), runner="inline")
    figures = []
    for command in ("results", "list"):
        wtb = [sys.executable, "-m", "wtb_prefect.cli", command, "bench_reading.py:project"]
        root = str(Path(__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": root}

        def run(_: int, wtb: list[str] = wtb, environment: dict[str, str] = environment) -> None:
            subprocess.run(wtb, cwd=folder, env=environment, check=True, capture_output=True)

        median = statistics.median(_timed(3 if quick else 7, run))
        figures.append(
            Figure(
                f"`wtb {command}` of a {count}-cell batch",
                f"{median:.2f} s",
                "under 1.5 s",
                median < 1.5,
                {"median_s": median},
            )
        )
    return figures


_RAY_FILE = """
from benchmarks.workflows import trivial_line
from wtb_prefect import WorkflowProject
project = WorkflowProject("on-ray", trivial_line, db_path="y.db", output_dir="y")
"""


def task_runs_on_ray(folder: Path, quick: bool) -> list[Figure]:
    """Prefect task runs of a batch on Ray, counted through Prefect's API."""
    count = 100 if quick else 1000
    (folder / "bench_ray.py").write_text(_RAY_FILE)
    script = Path(__file__).with_name("count_task_runs.py")
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), root])}
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run(
        [sys.executable, str(script), str(count)],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    runs, slots, cells = (int(word) for word in done.stdout.split()[-3:])
    limit = 4 * slots + 20
    return [
        Figure(
            f"Prefect task runs of a {cells}-cell batch on Ray, {slots} slots",
            str(runs),
            f"at most 4 x slots + 20 = {limit}",
            runs <= limit and cells == count,
            {"task_runs": runs, "slots": slots},
        )
    ]
