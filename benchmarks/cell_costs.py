"""What a cell costs: against bare LangGraph, with many in flight, and as a batch grows."""

from __future__ import annotations

import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver

from benchmarks import workflows
from benchmarks.measures import Figure
from benchmarks.peers import contenders
from wtb_prefect import TestBench, WorkflowProject

ROUNDS = 5
SIZES = {100: 5, 1000: 2, 3000: 1}
"""Cells in a batch, and how many such batches are measured."""


def unshared_overhead(folder: Path, quick: bool) -> list[Figure]:
    """Time per cell of five trivial nodes, against a loop over LangGraph with its SQLite saver.

    In rounds, a half of the loop before each batch and a half after it: what else the disk does
    changes within seconds, and moves a single long run of each side by a third.
    """
    count = 50 if quick else 200
    connection = sqlite3.connect(folder / "plain.db", check_same_thread=False)
    graph = workflows.trivial_line().compile(checkpointer=SqliteSaver(connection))

    def plain(name: str) -> float:
        began = time.perf_counter()
        for case in workflows.cases(count // 2):
            config: Any = {"configurable": {"thread_id": f"{name}-{case['id']}"}}
            graph.invoke(case["state"], config, durability="sync")
        return (time.perf_counter() - began) / count

    ours, bare = [], []
    with TestBench(_project(folder, "overhead")) as bench:
        plain("warm-up")
        _batch(bench, count // 2, "warm-up")
        for number in range(ROUNDS):
            before = plain(f"{number}-before")
            ours.append(_batch(bench, count, f"measured-{number}"))
            bare.append(before + plain(f"{number}-after"))
    connection.close()
    ratio = statistics.median(x / y for x, y in zip(ours, bare, strict=True))
    mine, plains = statistics.median(ours) * 1e3, statistics.median(bare) * 1e3
    return [
        Figure(
            f"unshared cells, 5 trivial nodes, {ROUNDS} times {count} cells, inline, against plain "
            "LangGraph",
            f"{ratio:.2f} times ({mine:.1f} ms against {plains:.1f} ms a cell)",
            "at most 1.4 times",
            ratio <= 1.4,
            {"ours_ms": mine, "plain_ms": plains},
        )
    ]


def many_in_flight(folder: Path, quick: bool) -> list[Figure]:
    """Waiting async nodes, against the bare async loop with LangGraph's own async SQLite saver."""
    count, rounds = (64, 1) if quick else (200, 3)
    taken: dict[str, list[float]] = {"bare": [], "wtb": []}
    for number in range(rounds):
        for name, walls in taken.items():
            place = folder / f"{name}-{number}"
            place.mkdir()
            run = contenders.CONTENDERS[name]
            walls.append(run(place, contenders.IN_FLIGHT, count).wall)
    bare, ours = (statistics.median(taken[name]) for name in ("bare", "wtb"))
    return [
        Figure(
            f"{count} cells of 5 x 50 ms async nodes, {contenders.IN_FLIGHT} in flight, against "
            "the bare async loop with AsyncSqliteSaver",
            f"{ours / bare:.2f} times ({ours:.2f} s against {bare:.2f} s)",
            "at most 1.3 times",
            ours / bare <= 1.3,
            {"ours_s": ours, "bare_s": bare},
        )
    ]


def cost_by_size(folder: Path, quick: bool) -> list[Figure]:
    """Processor time per cell in batches of growing size, each in a ledger of its own.

    Batches of these sizes run for a second to half a minute, and how fast the disk and the other
    programs of the machine let them changes in between; the time by the wall is kept beside it.
    """
    sizes = {100: 2, 300: 1} if quick else SIZES
    with TestBench(_project(folder, "warm-up")) as bench:
        _batch(bench, 50, "warm-up")
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    walls: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(max(sizes.values())):
        for size, times in sizes.items():
            if number < times:
                with TestBench(_project(folder, f"{size}-{number}")) as bench:
                    began = time.process_time()
                    walls[size].append(_batch(bench, size, "measured") * 1e3)
                    costs[size].append((time.process_time() - began) / size * 1e3)
    medians = {size: statistics.median(found) for size, found in costs.items()}
    spread = max(medians.values()) / min(medians.values())
    names = ", ".join(f"{size:,}" for size in sizes)
    values = ", ".join(f"{median:.1f}" for median in medians.values())
    return [
        Figure(
            f"processor time per cell in batches of {names} cells, 5 trivial nodes, inline",
            f"{values} ms: apart by {100 * (spread - 1):.0f}%",
            "at most 20%",
            spread <= 1.2,
            {f"cpu_ms_{size}": median for size, median in medians.items()}
            | {f"wall_ms_{size}": statistics.median(found) for size, found in walls.items()},
        )
    ]


def _project(folder: Path, name: str) -> WorkflowProject:
    return WorkflowProject(
        name, workflows.trivial_line, db_path=folder / f"{name}.db", output_dir=folder / name
    )


def _batch(bench: TestBench, cells: int, name: str) -> float:
    """Seconds per cell of a batch, from the request to its result."""
    began = time.perf_counter()
    bench.batch(cases=workflows.cases(cells), runner="inline", batch_id=name)
    return (time.perf_counter() - began) / cells
