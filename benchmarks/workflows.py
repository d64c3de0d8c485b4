"""The graphs that are measured: importable, so that Ray workers find them."""

from __future__ import annotations

import asyncio
import itertools
import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

NODES = 6
VARIED = (3, 4, 5)


class State(TypedDict):
    """A list that every node adds to, and a payload of a chosen size."""

    log: Annotated[list[str], operator.add]
    payload: str


def waiting_node(name: str, seconds: float) -> Any:
    """An async node that waits as a model call does."""

    async def node(state: State) -> dict[str, Any]:
        await asyncio.sleep(seconds)
        return {"log": [name]}

    return node


def trivial_node(name: str) -> Any:
    """A sync node that does next to nothing: what is left is overhead."""

    def node(state: State) -> dict[str, Any]:
        return {"log": [name]}

    return node


def line(nodes: list[Any]) -> StateGraph[Any, Any, Any, Any]:
    """A graph of the given nodes, one after the other."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    names = [f"n{number}" for number in range(len(nodes))]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node)
    builder.add_edge(START, names[0])
    for before, after in itertools.pairwise(names):
        builder.add_edge(before, after)
    return builder


def waiting_line(seconds: float = 0.05, nodes: int = NODES) -> StateGraph[Any, Any, Any, Any]:
    """Six waiting nodes, or as many as asked for."""
    return line([waiting_node(f"n{number}", seconds) for number in range(nodes)])


def trivial_line(nodes: int = 5) -> StateGraph[Any, Any, Any, Any]:
    """Five trivial nodes."""
    return line([trivial_node(f"n{number}") for number in range(nodes)])


def cases(count: int) -> list[dict[str, Any]]:
    """Numbered cases with a small state."""
    return [{"id": f"c{number}", "state": {"log": [], "payload": "x"}} for number in range(count)]
