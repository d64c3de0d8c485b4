"""Putting another implementation in a node's place, in a copy of the user's builder."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._runnable import RunnableCallable
from langgraph.graph import StateGraph
from langgraph.graph._node import StateNodeSpec

from wtb_prefect.errors import GraphError
from wtb_prefect.infrastructure.workflow.node_executors import (
    NodeCall,
    NodeExecutor,
)

type_builder = StateGraph[Any, Any, Any, Any]
_AUTO_HANDLER = "__default_error_handler__"


class _Undeclared:
    """Stands for the state schema where a variant's own input annotation is looked for."""


def clone_builder(builder: type_builder) -> type_builder:
    """A builder that can be changed and compiled without touching the user's.

    `compile` writes defaults into the specs and adds a handler node, and a second compile of the
    same builder can then fail; `deepcopy` fails on locks and clients. Copying the containers and
    the specs is enough.
    """
    clone = copy.copy(builder)
    clone.nodes = {
        name: dataclasses.replace(spec)
        for name, spec in builder.nodes.items()
        if name != _AUTO_HANDLER
    }
    clone.edges = set(builder.edges)
    clone.waiting_edges = set(builder.waiting_edges)
    clone.branches = defaultdict(dict, {name: dict(b) for name, b in builder.branches.items()})
    clone.channels = dict(builder.channels)
    clone.managed = dict(builder.managed)
    clone.schemas = {schema: dict(keys) for schema, keys in builder.schemas.items()}
    clone.compiled = False
    return clone


def swap(builder: type_builder, node: str, implementation: Callable[..., Any]) -> None:
    """Replaces a node's implementation in place, keeping everything declared about the node.

    Kept: retry, cache, timeout, metadata, defer, error handler and trace policies; destinations
    and input schema unless the implementation's annotations declare its own.
    """
    old = builder.nodes[node]
    fresh = _spec_of(builder, node, implementation)
    declared = fresh.input_schema is not _Undeclared
    builder.nodes[node] = dataclasses.replace(
        old,
        runnable=fresh.runnable,
        input_schema=fresh.input_schema if declared else old.input_schema,
        ends=fresh.ends or old.ends,
    )


def implementation_of(builder: type_builder, node: str, implementation: Callable[..., Any]) -> Any:
    """The runnable that LangGraph makes of an implementation of a node."""
    return _spec_of(builder, node, implementation).runnable


def _spec_of(
    builder: type_builder, node: str, implementation: Callable[..., Any]
) -> StateNodeSpec[Any, Any]:
    """What LangGraph itself makes of an implementation: runnable, input schema, destinations."""
    scratch = copy.copy(builder)
    scratch.nodes = {}
    scratch.state_schema = cast("Any", _Undeclared)
    try:
        scratch.add_node(node, implementation)
    except (ValueError, TypeError) as exc:
        raise GraphError(f"variant of node {node!r} cannot be a node: {exc}") from exc
    return scratch.nodes[node]


def replace_runnable(builder: type_builder, node: str, runnable: Any) -> None:
    """Puts a gate in a node's place: nothing of it may be served from a cache."""
    builder.nodes[node] = dataclasses.replace(
        builder.nodes[node], runnable=runnable, cache_policy=None
    )


def execute_by(path: str, runnable: Any, executor: NodeExecutor) -> RunnableCallable:
    """The runnable of a node, called by an executor. Retries are calls of their own."""
    if type(runnable) is not RunnableCallable or runnable.afunc is None:
        return _wrapped(path, runnable, executor)
    executed = copy.copy(runnable)
    implementation = runnable.afunc

    @functools.wraps(implementation)
    async def call(state: Any, *args: Any, **kwargs: Any) -> Any:
        def proceed(given: Any) -> Any:
            return implementation(given, *args, **kwargs)

        return await executor.execute(NodeCall(path, state, proceed))

    executed.afunc = call
    return executed


def _wrapped(path: str, runnable: Any, executor: NodeExecutor) -> RunnableCallable:
    """Composed runnables, models and generators: what LangGraph does not hold as a function."""

    async def call(state: Any, config: RunnableConfig) -> Any:
        def proceed(given: Any) -> Any:
            return runnable.ainvoke(given, config)

        return await executor.execute(NodeCall(path, state, proceed))

    return RunnableCallable(None, call, name=path.rpartition("|")[2], trace=False)
