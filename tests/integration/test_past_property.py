"""Generated graphs, edited at random: running again is running from scratch, at the exact cost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from graphs import CALLS, Request, combinations, requests, run_alone
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from past_model import Again, edited, implementations

from wtb_prefect import TestBench
from wtb_prefect.sdk.batch_result import BatchResult, Cell

EXAMPLES = int(os.environ.get("WTB_FUZZ_EXAMPLES", "0"))
"""More, random examples on demand; without it the same thirty every time."""

CASES = [{"id": "c", "state": {"log": ["in"]}}]


def notes(state: Mapping[str, Any]) -> float:
    return float(len(state["log"]) + state.get("total", 0) / 1009)


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: waiting for a disk proves nothing here."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def test_again_equals_from_scratch_at_the_cost_of_what_follows(memory_folder: Path) -> None:
    """Two edits, one after the other: state, files, path, scores, costs and bodies."""

    @settings(
        max_examples=EXAMPLES or 30,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(), st.data())
    def check(request: Request, data: st.DataObject) -> None:
        folder = Path(tempfile.mkdtemp(dir=memory_folder))
        try:
            edit_twice(request, data, folder)
        finally:
            shutil.rmtree(folder)

    check()


def edit_twice(request: Request, data: st.DataObject, folder: Path) -> None:
    """The first run, and two more after an edit each; every one against an empty ledger."""
    with bench_of(request, folder / "kept") as bench:
        batch(bench, request)
    for number in (1, 2):
        edit = data.draw(st.sampled_from(implementations(request)))
        request = edited(request, *edit, number)
        wanted = combinations(request.matrix, request.variants)
        alone = {
            name: run_alone(request, choices, folder / f"{number}-{place}")
            for place, (name, choices) in enumerate(wanted.items())
        }
        expected = Again(alone, wanted, edit)
        with bench_of(request, folder / "kept") as bench:
            again = batch(bench, request)
            kept = {cell.combination: seen(bench, cell) for cell in again.cells}
        with bench_of(request, folder / f"scratch{number}") as bench:
            scratch = batch(bench, request)
            assert kept == {cell.combination: seen(bench, cell) for cell in scratch.cells}
        if not {cell.unshared_reason for cell in again.cells} - {None}:
            assert again.node_executions == expected.bodies()
        event(f"runs less: {again.node_executions < scratch.node_executions}")


def bench_of(request: Request, folder: Path) -> TestBench:
    """The project of a request; its name is the same after an edit."""
    project = request.project("p", folder)
    project.evaluator(notes)
    return TestBench(project)


def batch(bench: TestBench, request: Request) -> BatchResult:
    CALLS.take()
    result = bench.batch(matrix=request.matrix, cases=CASES, runner="inline")
    assert result.node_executions == CALLS.take().total()
    return result


def seen(bench: TestBench, cell: Cell) -> tuple:
    """(state, files, nodes of each super-step, status, error, scores, bodies) of a cell."""
    assert cell.execution_id is not None
    blobs = bench.project.locations.output_dir / "blobs" / "objects"
    files = {
        path: (blobs / memento.blob_id[:2] / memento.blob_id[2:]).read_text()
        for path, memento in bench.files(cell.execution_id).items()
    }
    steps = [sorted(point.nodes) for point in bench.history(cell.execution_id) if point.nodes]
    error = cell.error and (cell.error.node, cell.error.type, cell.error.message)
    cost = cell.result.node_executions
    return cell.state, files, steps, cell.status, error, dict(cell.scores), cost
