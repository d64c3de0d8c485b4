"""Generated graphs: a shared batch is an unshared batch is plain LangGraph, at the exact cost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from graphs import CALLS, Request, combinations, requests, run_alone, tree_size
from hypothesis import HealthCheck, Phase, event, given, settings

from wtb_prefect import TestBench
from wtb_prefect.sdk.batch_result import BatchResult, Cell

EXAMPLES = int(os.environ.get("WTB_FUZZ_EXAMPLES", "0"))
"""More, random examples on demand; without it the same sixty every time."""

CASES = [{"id": "c", "state": {"log": ["in"]}}]


@dataclass
class Tally:
    """Of all generated graphs: those with something to share, and those of them that shared."""

    shareable: int = 0
    shared: int = 0


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: waiting for a disk proves nothing here."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def test_shared_equals_unshared_at_the_cost_of_the_prefix_tree(memory_folder: Path) -> None:
    """State, files, path, status and the number of node bodies, for every generated graph."""
    tally = Tally()

    @settings(
        max_examples=EXAMPLES or 60,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def check(request: Request) -> None:
        folder = Path(tempfile.mkdtemp(dir=memory_folder))
        try:
            compare(request, folder, memory_folder, tally)
        finally:
            shutil.rmtree(folder)

    check()
    assert tally.shareable >= (EXAMPLES or 60) // 2
    assert tally.shared >= 0.95 * tally.shareable


def compare(request: Request, folder: Path, stores: Path, tally: Tally) -> None:
    """One graph, run by LangGraph alone, by the bench without sharing and with it."""
    wanted = combinations(request.matrix, request.variants)
    alone = {
        name: run_alone(request, choices, folder / str(number))
        for number, (name, choices) in enumerate(wanted.items())
    }
    runs = [(wanted[name], run.steps) for name, run in alone.items()]
    lonely = sum(len(nodes) for _, steps in runs for nodes in steps)
    expected = tree_size(runs)
    CALLS.take()
    with TestBench(request.project(folder.name, stores / "shared")) as bench:
        shared = _batch(bench, request)
        assert shared.node_executions == CALLS.take().total() == expected
        seen = {cell.combination: _seen(bench, cell) for cell in shared.cells}
    with TestBench(request.project(folder.name, stores / "unshared")) as bench:
        unshared = _batch(bench, request, share_prefixes=False)
        assert unshared.node_executions == CALLS.take().total() == lonely
        assert seen == {cell.combination: _seen(bench, cell) for cell in unshared.cells}
    for name, run in alone.items():
        state, files, steps, status, _ = seen[name]
        assert status == ("failed" if run.failed else "completed")
        if not run.failed:
            assert (state, files, steps) == (run.state, run.files, run.steps)
    reasons = {cell.unshared_reason for cell in shared.cells} - {None}
    event(f"nodes saved: {expected < lonely}, unshared: {sorted(reasons)}")
    if expected < lonely:
        tally.shareable += 1
        tally.shared += not reasons


def _batch(bench: TestBench, request: Request, *, share_prefixes: bool = True) -> BatchResult:
    result = bench.batch(
        matrix=request.matrix, cases=CASES, runner="inline", share_prefixes=share_prefixes
    )
    recorded = {
        e.execution_id: e.node_executions for cell in result.cells for e in _lineage(bench, cell)
    }
    assert sum(recorded.values()) == result.node_executions
    return result


def _lineage(bench: TestBench, cell: Cell) -> list:
    assert cell.execution_id is not None
    with bench.session.open_uow() as uow:
        return uow.executions.lineage(cell.execution_id)


def _seen(bench: TestBench, cell: Cell) -> tuple:
    """(state, files, nodes of each super-step, status, error) of a cell."""
    assert cell.execution_id is not None
    blobs = bench.project.locations.output_dir / "blobs" / "objects"
    files = {
        path: (blobs / memento.blob_id[:2] / memento.blob_id[2:]).read_text()
        for path, memento in bench.files(cell.execution_id).items()
    }
    history = bench.history(cell.execution_id)
    points = history.checkpoints if hasattr(history, "checkpoints") else history
    steps = [sorted(point.nodes) for point in points if point.nodes]
    error = cell.error and (cell.error.node, cell.error.type, cell.error.message)
    return cell.state, files, steps, cell.status, error
