"""The graph of one set of choices: variants in their nodes' places, gates, subgraphs opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph._internal._config import patch_configurable
from langgraph._internal._constants import CONFIG_KEY_DURABILITY
from langgraph._internal._runnable import RunnableCallable
from langgraph.channels.topic import Topic
from langgraph.checkpoint.serde.types import TASKS
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel._utils import find_subgraph_pregel
from langgraph.types import CachePolicy, Send

from wtb_prefect.domain.workflow import ORIGINAL
from wtb_prefect.errors import GraphError
from wtb_prefect.infrastructure.workflow.gate import make_gate
from wtb_prefect.infrastructure.workflow.holding import HoldBefore
from wtb_prefect.infrastructure.workflow.mock_nodes import make_stand_in
from wtb_prefect.infrastructure.workflow.node_executors import NodeExecutor
from wtb_prefect.infrastructure.workflow.node_swap import (
    clone_builder,
    execute_by,
    replace_runnable,
    swap,
    type_builder,
)
from wtb_prefect.infrastructure.workflow.recursion import count_over_forks, counts_steps

SEPARATOR = "|"
"""Between a subgraph's node and the nodes inside it, in paths as in LangGraph's namespaces."""

_UNSAVED = {CONFIG_KEY_DURABILITY: "async"}

type_graph = CompiledStateGraph[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What goes where. Paths name nodes (`outer|inner`).

    `chosen` maps a path to the variant's name and implementation; executors answer for the nodes
    that are `mocked`; `executor_of` and
    `fingerprint_of` take a path and the name of the variant in force there.
    """

    chosen: Mapping[str, tuple[str, Any]]
    gated: Collection[str]
    mocked: Collection[str]
    executor_of: Callable[[str, str], NodeExecutor]
    fingerprint_of: Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Level:
    """One graph of a compiled workflow: its channels, its nodes, those of them with graphs inside.

    `opened` are the nodes whose inner nodes are nodes of the workflow; `delta` says that a channel
    is rebuilt from the writes between two snapshots, `counts` that nodes are told how many steps
    are left, `stateful` that the graph remembers its earlier visits.
    """

    channels: Mapping[str, Any]
    nodes: frozenset[str]
    opened: frozenset[str]
    delta: bool
    counts: bool
    stateful: bool


@dataclass(frozen=True, slots=True)
class CompiledWorkflow:
    """A graph ready to run, and its levels by path ("" is the top graph)."""

    graph: type_graph
    levels: Mapping[str, Level] = field(default_factory=dict)

    def counts_around(self, namespace: str) -> bool:
        """Whether a subgraph around a gate in this namespace counts its steps."""
        parts = path_of(namespace).split(SEPARATOR)
        around = (SEPARATOR.join(parts[:end]) for end in range(1, len(parts) + 1))
        return any(path and self.levels[path].counts for path in around)


def channels_of(builder: type_builder) -> dict[str, Any]:
    """The channels a checkpoint of this graph may hold."""
    return {**builder.channels, TASKS: Topic(Send, accumulate=False)}


def is_delta(channel: object) -> bool:
    """Whether a channel is rebuilt from writes; by name, because it is a beta of LangGraph's."""
    return type(channel).__name__ == "DeltaChannel"


def mounted_graph(runnable: Any) -> type_graph | None:
    """The graph that a node is, if its inner nodes can be seen and replaced.

    Not one compiled with `checkpointer=False`: it keeps nothing to go on from inside.
    """
    if isinstance(runnable, CompiledStateGraph) and runnable.checkpointer is not False:
        return runnable
    return None


def called_graph(runnable: Any) -> Any:
    """The graph that a node is or calls, as far as LangGraph can tell; None if there is none."""
    return find_subgraph_pregel(runnable)


def path_of(namespace: str) -> str:
    """The path of the node whose subgraph has this checkpoint namespace.

    A namespace is `outer:<task>|inner:<task>`; a part that is a number counts the calls of a
    subgraph within one task.
    """
    parts = (part.partition(":")[0] for part in namespace.split(SEPARATOR))
    return SEPARATOR.join(part for part in parts if not part.isdigit())


def compile_workflow(
    builder: type_builder, parts: Parts, options: Mapping[str, Any]
) -> CompiledWorkflow:
    """The graph with these parts; the user's own builder and graphs are left as they are.

    `options` go to LangGraph's `compile` of the top graph. Raises `GraphError`.
    """
    levels: dict[str, Level] = {}
    try:
        graph = _level(builder, parts, "", levels, options)
    except (ValueError, TypeError) as exc:
        raise GraphError(f"the graph does not compile: {exc}") from exc
    return CompiledWorkflow(graph, levels)


def _level(
    original: type_builder,
    parts: Parts,
    path: str,
    levels: dict[str, Level],
    options: Mapping[str, Any],
) -> type_graph:
    builder = clone_builder(original)
    channels = channels_of(builder)
    opened: set[str] = set()
    hidden: dict[str, Any] = {}
    for name, spec in list(builder.nodes.items()):
        here = _below(path, name)
        variant, implementation = parts.chosen.get(here, (ORIGINAL, None))
        if here in parts.gated:
            replace_runnable(builder, name, make_gate(here, tuple(channels)))
            continue
        if here in parts.mocked:
            replace_runnable(builder, name, make_stand_in(here))
            spec = builder.nodes[name]  # noqa: PLW2901 - the one just put there
        elif implementation is not None:
            swap(builder, name, implementation)
            spec = builder.nodes[name]  # noqa: PLW2901 - the one just put there
        inner = mounted_graph(spec.runnable)
        if inner is not None:
            opened.add(name)
            within = parts if implementation is None else _of_variant(parts, variant)
            spec.runnable = _mounted(inner, within, here, levels)
            continue
        hidden[name] = called_graph(spec.runnable)
        # A graph that keeps no checkpoints cannot save them in step: LangGraph fails on it.
        runnable = _without_checkpoints(spec.runnable, name)
        spec.runnable = execute_by(here, runnable, parts.executor_of(here, variant))
    stateful = bool(path) and options["checkpointer"] is True
    counts = counts_steps(builder.managed) is not None
    if not stateful:
        builder.managed = count_over_forks(builder.managed, inside=bool(path))
    graph = builder.compile(**options)
    graph.interrupt_before_nodes = HoldBefore(path, {n: _below(path, n) for n in builder.nodes})
    _finish(graph, path, parts, hidden)
    levels[path] = Level(
        channels=channels,
        nodes=frozenset(builder.nodes),
        opened=frozenset(opened),
        delta=any(map(is_delta, channels.values())),
        counts=counts,
        stateful=stateful,
    )
    return graph


def _below(path: str, name: str) -> str:
    return f"{path}{SEPARATOR}{name}" if path else name


def _of_variant(parts: Parts, variant: str) -> Parts:
    """Inside a variant that is a graph nothing is replaced: paths name the original's nodes."""
    return dataclasses.replace(
        parts,
        chosen={},
        gated=(),
        mocked=(),
        executor_of=lambda path, _: parts.executor_of(path, variant),
        fingerprint_of=lambda path, _: parts.fingerprint_of(path, variant),
    )


def _mounted(graph: type_graph, parts: Parts, path: str, levels: dict[str, Level]) -> type_graph:
    """A subgraph compiled again with the parts in it, and all else as the user compiled it.

    Its static breakpoints are not taken over, like those of the top graph.
    """
    options = {
        "checkpointer": graph.checkpointer if isinstance(graph.checkpointer, bool) else None,
        "cache": graph.cache,
        "store": graph.store,
        "name": graph.name,
    }
    fresh = _level(graph.builder, parts, path, levels, options)
    for kept in ("config", "step_timeout", "retry_policy", "cache_policy", "stream_eager"):
        setattr(fresh, kept, getattr(graph, kept))
    return fresh


def _without_checkpoints(runnable: Any, name: str) -> Any:
    if not isinstance(runnable, CompiledStateGraph):
        return runnable

    async def call(state: Any, config: RunnableConfig) -> Any:
        return await runnable.ainvoke(state, patch_configurable(config, _UNSAVED))

    return RunnableCallable(None, call, name=name, trace=False)


def _finish(graph: type_graph, path: str, parts: Parts, hidden: Mapping[str, Any]) -> None:
    """What only a compiled graph has: defaults of the builder are applied by then."""
    for name, node in graph.nodes.items():
        here = _below(path, name)
        if hidden.get(name) is not None:
            node.subgraphs = [hidden[name]]
        if node.cache_policy is None:
            continue
        if here in parts.gated or here in parts.mocked:
            node.cache_policy = None  # neither must be answered from a cache
        else:
            variant = parts.chosen.get(here, (ORIGINAL, None))[0]
            node.cache_policy = _tagged(node.cache_policy, parts.fingerprint_of(here, variant))


def _tagged(policy: CachePolicy[Any], fingerprint: str) -> CachePolicy[Any]:
    """The policy with keys of this implementation only: LangGraph's keys name the function, and
    variants made by one factory share that name."""
    key_of = policy.key_func

    def key(*args: Any, **kwargs: Any) -> str | bytes:
        found = key_of(*args, **kwargs)
        if isinstance(found, bytes):
            return f"{fingerprint}:".encode() + found
        return f"{fingerprint}:{found}"

    return dataclasses.replace(policy, key_func=key)
