"""The smallest bench: a graph of two nodes, one variant, one evaluator.

wtb run examples/minimal/bench.py:project --cases examples/minimal/cases.jsonl --variant 'greet=*'
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from wtb_prefect import WorkflowProject

HERE = Path(__file__).parent


class State(TypedDict, total=False):
    """What the graph works on."""

    name: str
    greeting: str
    length: int


def greet(state: State) -> dict[str, str]:
    """The node whose alternatives are tested."""
    return {"greeting": f"Hello {state['name']}"}


def measure(state: State) -> dict[str, int]:
    """A node that every variant shares."""
    return {"length": len(state["greeting"])}


def build_graph() -> StateGraph[Any, Any, Any, Any]:
    """greet -> measure."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    builder.add_node("greet", greet)
    builder.add_node("measure", measure)
    builder.add_edge(START, "greet")
    builder.add_edge("greet", "measure")
    return builder


project = WorkflowProject(
    "minimal",
    build_graph,
    db_path=HERE / ".wtb" / "wtb.db",
    output_dir=HERE / ".wtb" / "outputs",
)


@project.variant("greet", "formal")
def greet_formally(state: State) -> dict[str, str]:
    """The alternative."""
    return {"greeting": f"Good day, {state['name']}."}


@project.evaluator(primary=True)
def is_formal(state: State, expected: str) -> bool:
    """Whether the greeting is the expected one."""
    return state["greeting"] == expected


@project.evaluator(goal="min")
def length(state: State) -> int:
    """Shorter is better."""
    return state["length"]
