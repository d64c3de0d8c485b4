"""A project small enough to reason about: nodes in a line, counted, each leaving a file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphs import CALLS, Body, State, make_body
from langgraph.graph import START, StateGraph

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.sdk.batch_result import BatchResult

CASES = [
    {"id": "c1", "state": {"log": ["1"]}, "tags": ["quick"]},
    {"id": "c2", "state": {"log": ["2"]}, "tags": ["slow", "odd"]},
    {"id": "c3", "state": {"log": ["3"]}, "tags": ["quick", "odd"]},
]
MATRIX = {"b": "*", "c": "*"}


def line(*names: str, **bodies: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph that runs nodes one after another."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    for name in names:
        builder.add_node(name, bodies.get(name) or make_body(Body(name)))
    builder.add_edge(START, names[0])
    for pair in itertools.pairwise(names):
        builder.add_edge(*pair)
    return builder


def project(
    folder: Path,
    variants: Mapping[str, Any] | None = None,
    graph: StateGraph[Any, Any, Any, Any] | None = None,
    **options: Any,
) -> WorkflowProject:
    """a -> b -> c with a variant of b and one of c, in whose places `variants` may put others."""
    made = WorkflowProject(
        "line",
        graph or line("a", "b", "c"),
        db_path=folder / "w.db",
        output_dir=folder / "out",
        **options,
    )
    for node in "bc":
        code = (variants or {}).get(node) or make_body(Body(node, "x"))
        made.variant(node, "x", code)
    return made


def run(bench: TestBench, matrix: Any = None, cases: Any = CASES, **options: Any) -> BatchResult:
    """A batch on the inline runner whose count of bodies is that of the nodes themselves."""
    CALLS.take()
    result = bench.batch(matrix=matrix or MATRIX, cases=cases, runner="inline", **options)
    assert result.node_executions == CALLS.take().total()
    return result
