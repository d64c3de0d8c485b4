"""Another implementation in a node's place."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, TypedDict

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy

from wtb_prefect.errors import GraphError
from wtb_prefect.infrastructure.workflow.gate import make_gate
from wtb_prefect.infrastructure.workflow.node_executors import DefaultNodeExecutor
from wtb_prefect.infrastructure.workflow.node_swap import (
    clone_builder,
    execute_by,
    replace_runnable,
    swap,
)


class State(TypedDict, total=False):
    a: int
    b: int


class OnlyA(TypedDict):
    a: int


class OnlyB(TypedDict):
    b: int


def original(state: OnlyA) -> dict[str, int]:
    return {"a": state["a"] + 1}


def variant(state):  # type: ignore[no-untyped-def]
    return {"a": state["a"] + 10}


async def avariant(state):  # type: ignore[no-untyped-def]
    return {"a": state["a"] + 10}


def narrower(state: OnlyB) -> dict[str, int]:
    return {"b": 7}


def goes(state: OnlyA) -> Command[Literal["end"]]:
    return Command(goto="end")


def handler(state: State) -> dict[str, int]:
    return {"b": -1}


def builder(**options: Any) -> StateGraph[Any, Any, Any, Any]:
    made = StateGraph(State)
    made.add_node("n", original, **options)
    made.add_node("end", variant)
    made.add_edge(START, "n")
    return made


DECLARED = {
    "retry_policy": RetryPolicy(max_attempts=2),
    "cache_policy": CachePolicy(ttl=5),
    "metadata": {"owner": "x"},
    "defer": True,
    "destinations": ("end",),
    "error_handler": handler,
}


def test_everything_declared_about_a_node_is_kept() -> None:
    """Retry, cache, metadata, defer, destinations, error handler and input schema."""
    made = clone_builder(builder(**DECLARED))
    before, order = made.nodes["n"], list(made.nodes)
    swap(made, "n", variant)
    after = made.nodes["n"]
    assert after.runnable is not before.runnable
    for name in (
        "retry_policy",
        "cache_policy",
        "metadata",
        "defer",
        "ends",
        "input_schema",
        "error_handler_node",
        "is_error_handler",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert after.input_schema is OnlyA
    assert before.error_handler_node is not None
    assert before.error_handler_node in made.nodes
    assert list(made.nodes) == order


def test_timeout_is_kept() -> None:
    """LangGraph takes timeouts for async nodes only."""

    async def slow(state: OnlyA) -> dict[str, int]:
        return {}

    made = StateGraph(State)
    made.add_node("n", slow, timeout=9)
    before = made.nodes["n"].timeout
    swap(made, "n", avariant)
    assert before is not None
    assert made.nodes["n"].timeout == before


def test_a_variant_may_declare_its_own_input_and_destinations() -> None:
    """Its annotations win over the original's."""
    made = clone_builder(builder())
    swap(made, "n", narrower)
    assert made.nodes["n"].input_schema is OnlyB
    swap(made, "n", goes)
    assert made.nodes["n"].ends == ("end",)


def test_what_cannot_be_a_node_is_refused() -> None:
    """By the name of its place."""
    with pytest.raises(GraphError, match="variant of node 'n'"):
        swap(clone_builder(builder()), "n", 7)  # type: ignore[arg-type]


def test_the_builder_of_the_user_is_not_touched() -> None:
    """Swapped, counted, gated and compiled clones leave it as it was, also with node defaults."""
    mine = builder(**DECLARED)
    mine.set_node_defaults(retry_policy=RetryPolicy(max_attempts=5), error_handler=handler)
    nodes, edges = dict(mine.nodes), set(mine.edges)
    for _ in range(2):
        clone = clone_builder(mine)
        swap(clone, "end", narrower)
        replace_runnable(clone, "n", make_gate("n", ("a",)))
        clone.compile()
    assert (mine.nodes, mine.edges, mine.compiled) == (nodes, edges, False)
    mine.compile()
    clone_builder(mine).compile()


def test_a_swapped_node_runs_in_place_and_sees_the_kept_schema() -> None:
    """The graph with the variant, run."""
    made = clone_builder(builder())
    swap(made, "n", variant)
    made.nodes["n"].runnable = execute_by("n", made.nodes["n"].runnable, DefaultNodeExecutor())
    assert asyncio.run(made.compile().ainvoke({"a": 1, "b": 2})) == {"a": 11, "b": 2}


def test_a_gate_is_not_cached() -> None:
    """Whatever the node declared: a cached answer would pass the gate."""
    made = clone_builder(builder(cache_policy=CachePolicy()))
    replace_runnable(made, "n", make_gate("n", ("a",)))
    assert made.nodes["n"].cache_policy is None
    assert made.compile(cache=InMemoryCache()).nodes["n"].cache_policy is None
