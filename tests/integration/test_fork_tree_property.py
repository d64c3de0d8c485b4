"""Generated graphs: a shared batch is an unshared batch is plain LangGraph, at the exact cost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from generated.alone import CONTEXT, Alone, combinations, run_alone, tree_size
from generated.blueprint import Request, implementation
from generated.draw import requests
from generated.state import CALLS
from hypothesis import HealthCheck, Phase, event, given, settings

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.sdk.batch_result import BatchResult, Cell

EXAMPLES = int(os.environ.get("WTB_FUZZ_EXAMPLES", "0"))
"""More, random examples on demand, over all families; without it the same ones every time."""

NOT_YET: frozenset[str] = frozenset(
    {
        "inner variant",  # variants of nodes in mounted graphs
        "questions",  # `Case.answers`
        "context",  # `WorkflowProject(context=...)`
        "store",
        "cache",
        "delta",
        "memory",
    }
)
"""Features of graphs that the engine does not run yet: not generated."""

SHAPES = frozenset({"send", "command", "defer", "retry", "handler", "timeout", "errors"})
SUBGRAPHS = frozenset(
    {
        "subgraph",
        "inner variant",
        "mount variant",
        "memory",
        "called",
        "parent command",
        "send",
        "command",
        "errors",
    }
)
QUESTIONS = frozenset({"questions", "questions beside", "pause", "subgraph", "inner variant"})
STATES = frozenset(
    {"messages", "delta", "store", "context", "cache", "steps left", "last step", "recursion"}
)
MIXED = SHAPES | SUBGRAPHS | QUESTIONS | STATES | {"errors beside"}
"""Everything at once: for the slow target."""

FAMILIES: dict[str, tuple[frozenset[str], int]] = {
    "plain": (frozenset(), 40),
    "shapes": (SHAPES, 60),
    "subgraphs": (SUBGRAPHS, 60),
    "questions": (QUESTIONS, 40),
    "states": (STATES, 40),
    "mixed": (MIXED, 20),
}


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


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_equals_unshared_at_the_cost_of_the_prefix_tree(
    memory_folder: Path, family: str
) -> None:
    """State, files, path, status, error and the number of node bodies, for every graph."""
    features, few = FAMILIES[family]
    number = few * EXAMPLES // sum(n for _, n in FAMILIES.values()) if EXAMPLES else few
    tally = Tally()

    @settings(
        max_examples=number,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(features - NOT_YET))
    def check(request: Request) -> None:
        folder = Path(tempfile.mkdtemp(dir=memory_folder))
        try:
            compare(request, folder, memory_folder, tally)
        finally:
            shutil.rmtree(folder)

    check()
    if not family == "mixed":
        assert tally.shareable >= number // 3
        assert tally.shared >= 0.9 * tally.shareable


def compare(request: Request, folder: Path, stores: Path, tally: Tally) -> None:
    """One graph, run by LangGraph alone, by the bench without sharing and with it."""
    wanted = combinations(request)
    alone = {
        name: run_alone(request, choices, folder / str(number))
        for number, (name, choices) in enumerate(wanted.items())
    }
    lonely = sum(run.bodies for run in alone.values())
    exact = not (request.racy or "cache" in request.blueprint.features)
    with TestBench(project_of(request, folder.name, stores / "shared")) as bench:
        shared = _batch(bench, request)
        seen = {cell.combination: _seen(bench, cell) for cell in shared.cells}
    with TestBench(project_of(request, folder.name, stores / "unshared")) as bench:
        unshared = _batch(bench, request, share_prefixes=False)
        apart = {cell.combination: _seen(bench, cell) for cell in unshared.cells}
    for name, run in alone.items():
        check_cell(request, run, seen[name], apart[name])
    reasons = {cell.unshared_reason for cell in shared.cells} - {None}
    event(f"unshared: {sorted(reasons)}")
    if not exact:
        return
    expected = tree_size([(wanted[name], run.visits) for name, run in alone.items()])
    assert unshared.node_executions == lonely
    if reasons:
        assert shared.node_executions >= lonely
    else:
        assert shared.node_executions == expected
    if expected < lonely:
        tally.shareable += 1
        tally.shared += not reasons


def check_cell(request: Request, run: Alone, shared: tuple[Any, ...], apart: tuple[Any, ...]) -> None:
    """A cell of both batches against the run without the bench."""
    assert shared[3] == apart[3] == run.status
    if request.racy:
        return  # a failing node ends its siblings where they happen to be
    assert shared == apart
    state, files, steps, _, error = shared
    if run.status == "completed":
        assert (state, files, steps) == (_comparable(run.state), run.files, run.steps)
    elif run.status == "failed":
        assert error[1:] == run.error


def project_of(request: Request, name: str, folder: Path) -> WorkflowProject:
    """The project of a request, in a ledger below a folder that all requests share."""
    features = set(request.blueprint.features)
    compiled = features & {"store", "cache"}
    options: dict[str, Any] = {"context": CONTEXT} if "context" in features else {}
    project = WorkflowProject(
        name,
        request.blueprint.compile if compiled else request.blueprint.build,
        db_path=folder / "w.db",
        output_dir=folder / "out",
        **options,
    )
    for node in request.variants:
        project.variant(node.node, node.variant, implementation(node))
    return project


def _batch(bench: TestBench, request: Request, *, share_prefixes: bool = True) -> BatchResult:
    CALLS.take()
    result = bench.batch(
        matrix=request.matrix,
        cases=[request.case()],
        runner="inline",
        share_prefixes=share_prefixes,
    )
    assert result.node_executions == CALLS.take().total()
    recorded = {
        e.execution_id: e.node_executions for cell in result.cells for e in _lineage(bench, cell)
    }
    assert sum(recorded.values()) == result.node_executions
    return result


def _lineage(bench: TestBench, cell: Cell) -> list[Any]:
    assert cell.execution_id is not None
    with bench.session.open_uow() as uow:
        return uow.executions.lineage(cell.execution_id)


def _seen(bench: TestBench, cell: Cell) -> tuple[Any, ...]:
    """(state, files, nodes of each super-step, status, error) of a cell."""
    assert cell.execution_id is not None
    blobs = bench.project.locations.output_dir / "blobs" / "objects"
    files = {
        path: (blobs / memento.blob_id[:2] / memento.blob_id[2:]).read_text()
        for path, memento in bench.files(cell.execution_id).items()
    }
    steps = [sorted(point.nodes) for point in bench.history(cell.execution_id) if point.nodes]
    error = cell.error and (cell.error.node, cell.error.type, cell.error.message)
    return _comparable(cell.state), files, steps, cell.status, error


def _comparable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Without the ids that LangGraph makes up for messages."""
    comparable = dict(state)
    if "messages" in state:
        made_up = 36
        comparable["messages"] = [
            (type(message).__name__, message.content, len(message.id) != made_up and message.id)
            for message in state["messages"]
        ]
    return comparable

