"""One generated graph, three ways: shared, unshared, and plain LangGraph. They have to agree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generated.alone import CONTEXT, Alone, combinations, run_alone, tree_size
from generated.blueprint import Mount, Request, implementation
from generated.state import CALLS
from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.sdk.batch_result import BatchResult, Cell

NAMED = (
    "a question is open beside a node that varies",
    "an error handler ran in the super-step of the gate",
    "counts steps, and that subgraph has a memory",
    "nodes of a subgraph count the steps left",
    "a question was answered in the super-step of the gate",
)
"""Why a generated graph may not be shared; everything else in it can be."""


@dataclass
class Tally:
    """Of all generated graphs: those with something to share, and those of them that shared."""

    shareable: int = 0
    shared: int = 0


def compare(request: Request, folder: Path, stores: Path, tally: Tally) -> set[str]:
    """One graph, run by LangGraph alone, by the bench without sharing and with it.

    Gives the reasons for which something was not shared.
    """
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
    reasons = {cell.unshared_reason for cell in shared.cells if cell.unshared_reason}
    assert all(any(known in reason for known in NAMED) for reason in reasons), reasons
    if not exact:
        # A cache answers for bodies, an error ends them: fewer may run, never more.
        assert request.racy or unshared.node_executions <= lonely
        return reasons
    expected = tree_size([(wanted[name], run.visits) for name, run in alone.items()])
    assert unshared.node_executions == lonely
    if reasons:
        assert shared.node_executions <= lonely + expected
    else:
        assert shared.node_executions == expected
    if expected < lonely:
        tally.shareable += 1
        tally.shared += not reasons
    return reasons


def check_cell(
    request: Request, run: Alone, shared: tuple[Any, ...], apart: tuple[Any, ...]
) -> None:
    """A cell of both batches against the run without the bench."""
    assert shared[3] == apart[3] == run.status
    if request.racy:
        return  # a failing node ends its siblings where they happen to be
    if shared[4] is not None and shared[4][1] == "GraphRecursionError" and _has_mounts(request):
        # So does a subgraph that takes too many steps: what runs beside it may have written or not.
        shared, apart = ((s, None, *rest) for s, _, *rest in (shared, apart))
    assert shared == apart
    state, files, steps, _, error = shared
    if run.status == "completed":
        assert (state, files, steps) == (comparable(run.state), run.files, run.steps)
    elif run.status == "failed":
        assert run.error is not None
        assert error == (error[0], run.error[0], _timeless(run.error[1]))


def _has_mounts(request: Request) -> bool:
    return any(isinstance(node, Mount) for node in request.blueprint.nodes.values())


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
        retries=0,  # plain LangGraph does not try again when a node's time was up
    )
    assert result.node_executions == CALLS.take().total()
    recorded = {
        e.execution_id: e.node_executions for cell in result.cells for e in _lineage(bench, cell)
    }
    reasons = share_prefixes and {cell.unshared_reason for cell in result.cells} - {None}
    # What ran before something turned out not to be shareable is behind no cell.
    wasted = result.node_executions - sum(recorded.values())
    assert wasted >= 0 if reasons else wasted == 0
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
    error = cell.error and (cell.error.node, cell.error.type, _timeless(cell.error.message))
    return comparable(cell.state), files, steps, cell.status, error


def _timeless(message: str) -> str:
    """Without how long it took until a node's time was up."""
    return re.sub(r"elapsed: [\d.]+s", "elapsed", message)


def comparable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Without the ids that LangGraph makes up for messages."""
    comparable = dict(state)
    if "messages" in state:
        made_up = 36
        comparable["messages"] = [
            (type(message).__name__, message.content, len(message.id) != made_up and message.id)
            for message in state["messages"]
        ]
    return comparable
