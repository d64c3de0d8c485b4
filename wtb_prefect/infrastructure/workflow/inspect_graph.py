"""What a graph says about itself: its description, why it cannot be shared, what input it takes."""

from __future__ import annotations

import dataclasses
import hashlib
import typing
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langgraph._internal._serde import build_serde_allowlist
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.graph import END, START

from wtb_prefect.domain.identifiers import digest
from wtb_prefect.domain.workflow import TestWorkflow, WorkflowEdge, WorkflowNode
from wtb_prefect.errors import StateError
from wtb_prefect.infrastructure.workflow.compile_graph import (
    SEPARATOR,
    called_graph,
    channels_of,
    is_delta,
    mounted_graph,
    path_of,
)
from wtb_prefect.infrastructure.workflow.execution_store import is_copyable
from wtb_prefect.infrastructure.workflow.fingerprint import OPAQUE, fingerprint_code
from wtb_prefect.infrastructure.workflow.graph_source import GraphSource
from wtb_prefect.infrastructure.workflow.node_swap import type_builder
from wtb_prefect.infrastructure.workflow.recursion import counts_steps


def describe(
    source: GraphSource, workflow_id: str, name: str, import_path: str | None, store: bytes | None
) -> TestWorkflow:
    """The graph as the ledger keeps it, nodes inside mounted subgraphs by their paths.

    `store` is what the store it was compiled with holds at the start of every execution.
    """
    around = surroundings(source, store)
    own = _graph_fingerprint(source.builder)
    opaque = OPAQUE if OPAQUE in (own[0], around[0]) else ""
    return TestWorkflow(
        workflow_id=workflow_id,
        name=name,
        import_path=import_path,
        fingerprint=opaque + digest(own, around),
        nodes=tuple(_nodes(source.builder)),
        edges=tuple(_edges(source.builder, "", ())),
    )


def surroundings(source: GraphSource, store: bytes | None) -> str:
    """What identifies the runtime context, and what the store holds at the start."""
    context = fingerprint_code(source.context)
    content = None if store is None else hashlib.sha256(store).hexdigest()
    return (OPAQUE if context[0] == OPAQUE else "") + digest(context, content)


def opened(builder: type_builder, path: str = "") -> Iterator[tuple[str, type_builder]]:
    """(path, builder) of a graph and of the subgraphs mounted in it, the top one ("") first."""
    yield path, builder
    for name, spec in builder.nodes.items():
        inner = mounted_graph(spec.runnable)
        if inner is not None:
            yield from opened(inner.builder, _below(path, name))


def state_channels(builder: type_builder) -> dict[str, Any]:
    """The channels of the state schema: what people call the state."""
    channels = channels_of(builder)
    return {key: channels[key] for key in builder.schemas[builder.state_schema] if key in channels}


def delta_channels(builder: type_builder, namespace: str) -> dict[str, Any]:
    """The channels of a namespace's graph that are kept as a history of writes."""
    path = path_of(namespace)
    channels = next((b.channels for at, b in opened(builder) if at == path), {})
    return {key: channel for key, channel in channels.items() if is_delta(channel)}


def _below(path: str, name: str) -> str:
    return f"{path}{SEPARATOR}{name}" if path else name


def _nodes(builder: type_builder, path: str = "") -> Iterator[WorkflowNode]:
    for name, spec in builder.nodes.items():
        inner = mounted_graph(spec.runnable)
        here = _below(path, name)
        yield WorkflowNode(
            name=here,
            fingerprint=fingerprint_code(spec.runnable if inner is None else inner),
            deferred=spec.defer,
            is_subgraph=inner is not None,
        )
        if inner is not None:
            yield from _nodes(inner.builder, here)


def _edges(builder: type_builder, path: str, after: Sequence[str]) -> Iterator[WorkflowEdge]:
    """The connections, by paths. A subgraph's node leads to the first nodes inside, and the last
    ones inside to what follows the subgraph (`after`)."""
    followers: dict[str, list[str]] = defaultdict(list)
    for source, target, conditional in _plain_edges(builder):
        begin = path if source == START else _below(path, source)
        ends = after if target == END else (_below(path, target),)
        if source == START and not path:
            begin = START
        for end in ends or ((END,) if not path else ()):
            yield WorkflowEdge(source=begin, target=end, conditional=conditional)
            followers[source].append(end)
    for name, spec in builder.nodes.items():
        inner = mounted_graph(spec.runnable)
        if inner is not None:
            yield from _edges(inner.builder, _below(path, name), tuple(followers[name]))


def _plain_edges(builder: type_builder) -> Iterator[tuple[str, str, bool]]:
    for source, target in sorted(builder.edges):
        yield source, target, False
    for sources, target in sorted(builder.waiting_edges):
        for source in sources:
            yield source, target, False
    for source, branches in sorted(builder.branches.items()):
        for branch in branches.values():
            targets = branch.ends.values() if branch.ends else [*builder.nodes, END]
            for target in targets:
                yield source, target, True
    for source, spec in builder.nodes.items():
        for target in spec.ends or ():
            if target in builder.nodes or target == END:
                yield source, target, True


def _graph_fingerprint(builder: type_builder) -> str:
    """Topology, state schema with its reducers, and routers; node code is fingerprinted apart."""
    branches = [
        (node, name, branch)
        for node, found in sorted(builder.branches.items())
        for name, branch in sorted(found.items())
    ]
    codes = [fingerprint_code(branch.path) for _, _, branch in branches]
    routers = [
        [node, name, code, sorted((branch.ends or {}).items(), key=repr)]
        for (node, name, branch), code in zip(branches, codes, strict=True)
    ]
    channels = [
        [key, type(channel).__name__, fingerprint_code(getattr(channel, "operator", None))]
        for key, channel in sorted(builder.channels.items())
    ]
    specs = [[node, spec.defer, spec.error_handler_node] for node, spec in builder.nodes.items()]
    opaque = any(code.startswith(OPAQUE) for code in codes)
    return (OPAQUE if opaque else "") + digest(
        sorted(map(list, builder.edges)),
        sorted([list(sources), target] for sources, target in builder.waiting_edges),
        routers,
        channels,
        specs,
    )


def unshared_reasons(source: GraphSource, varying: Sequence[str]) -> tuple[str, ...]:
    """Why no prefix may be shared with this graph, in words; empty if prefixes may be shared."""
    graphs = list(opened(source.builder))
    around = [
        (path, builder)
        for path, builder in graphs
        if not path or any(node.startswith(path + SEPARATOR) for node in varying)
    ]
    reasons = [
        f"state key {key!r}{_inside(path)} is an UntrackedValue, which no checkpoint holds"
        for path, builder in around
        for key, channel in builder.channels.items()
        if isinstance(channel, UntrackedValue)
    ]
    if source.store is not None and not is_copyable(source.store):
        kind = type(source.store).__name__
        reasons.append(f"forks would share the graph's {kind}: only an InMemoryStore is copied")
    reasons += [
        f"node {_below(path, name)!r} calls a subgraph that keeps its own memory"
        for path, builder in graphs
        for name, spec in builder.nodes.items()
        if _calls_stateful(spec)
    ]
    stateful = set(_stateful(source.builder))
    reasons += [
        f"state key {key!r}{_inside(path)} counts steps, and that subgraph has a memory"
        for path, builder in graphs
        if path in stateful and (key := counts_steps(builder.managed))
    ]
    return tuple(reasons)


def _inside(path: str) -> str:
    return f" of subgraph {path!r}" if path else ""


def _stateful(builder: type_builder, path: str = "") -> Iterator[str]:
    """The paths of subgraphs that remember their earlier visits."""
    for name, spec in builder.nodes.items():
        inner = mounted_graph(spec.runnable)
        if inner is not None:
            here = _below(path, name)
            if inner.checkpointer is True:
                yield here
            yield from _stateful(inner.builder, here)


def _calls_stateful(spec: Any) -> bool:
    called = None if mounted_graph(spec.runnable) else called_graph(spec.runnable)
    return getattr(called, "checkpointer", None) is True


def allowed_types(
    builder: type_builder, variants: Iterable[Any], extra: Iterable[type]
) -> set[tuple[str, ...]]:
    """The classes a checkpoint may hold: those of the schemas of the graph, of its subgraphs and
    of variants that are graphs, and the user's."""
    graphs = [inner for _, inner in opened(builder)]
    for variant in variants:
        own = mounted_graph(variant)
        graphs += [inner for _, inner in opened(own.builder)] if own else []
    found: set[tuple[str, ...]] = set()
    for graph in graphs:
        schemas = [graph.state_schema, graph.input_schema, graph.output_schema]
        schemas += [spec.input_schema for spec in graph.nodes.values()]
        found |= build_serde_allowlist(schemas=schemas, channels=graph.channels)
    return found | {(cls.__module__, cls.__qualname__) for cls in extra}


def check_keys(builder: type_builder, state: Mapping[str, Any]) -> None:
    """Refuses an initial state that the graph's input schema cannot take.

    Raises:
        StateError: not a mapping, unknown keys, no key at all, or a required key missing. For a
            TypedDict, keys are required where the graph declares an input schema of its own;
            otherwise later nodes may be the ones that write them.
    """
    if not isinstance(state, Mapping):
        raise StateError(f"an initial state is a mapping of state keys, not {type(state).__name__}")
    schema = builder.input_schema
    keys = set(builder.schemas[schema])
    if keys == {"__root__"}:
        return
    listed = ", ".join(sorted(keys))
    if unknown := sorted(set(state) - keys):
        raise StateError(f"state has no key {unknown[0]!r}; the graph's input has: {listed}")
    if not state:
        raise StateError(f"the state is empty; the graph's input has: {listed}")
    if missing := sorted(_required(schema, builder.state_schema) - set(state)):
        given = ", ".join(sorted(state))
        raise StateError(f"state misses the required key {missing[0]!r}; given: {given}")


def _required(schema: Any, state_schema: Any) -> set[str]:
    fields = getattr(schema, "model_fields", None)
    if fields is not None:
        return {name for name, field in fields.items() if field.is_required()}
    if dataclasses.is_dataclass(schema):
        return {
            field.name
            for field in dataclasses.fields(schema)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
    if typing.is_typeddict(schema) or hasattr(schema, "__required_keys__"):
        return set(schema.__required_keys__) if schema is not state_schema else set()
    return set()


def check_output_keys(keys: Iterable[str], output: Any) -> None:
    """Refuses keys that are not of the state: LangGraph would drop them without a word.

    Raises:
        StateError: naming the first of them.
    """
    known = set(keys)
    if not isinstance(output, Mapping) or "__root__" in known:
        return
    if unknown := sorted(str(key) for key in set(output) - known):
        raise StateError(
            f"state has no key {unknown[0]!r}; the state has: {', '.join(sorted(known))}"
        )
