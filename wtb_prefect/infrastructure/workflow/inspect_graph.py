"""What a graph says about itself: its description, why it cannot be shared, what input it takes."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from langgraph._internal._serde import build_serde_allowlist
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.graph import END
from langgraph.managed.is_last_step import IsLastStepManager, RemainingStepsManager
from langgraph.pregel._utils import find_subgraph_pregel

from wtb_prefect.domain.identifiers import digest
from wtb_prefect.domain.workflow import TestWorkflow, WorkflowEdge, WorkflowNode
from wtb_prefect.errors import StateError
from wtb_prefect.infrastructure.workflow.fingerprint import OPAQUE, fingerprint_code
from wtb_prefect.infrastructure.workflow.graph_source import GraphSource
from wtb_prefect.infrastructure.workflow.node_swap import type_builder


def describe(
    source: GraphSource, workflow_id: str, name: str, import_path: str | None
) -> TestWorkflow:
    """The graph as the ledger keeps it."""
    builder = source.builder
    nodes = tuple(
        WorkflowNode(
            name=node,
            fingerprint=fingerprint_code(spec.runnable),
            deferred=spec.defer,
            is_subgraph=find_subgraph_pregel(typing.cast("Any", spec.runnable)) is not None,
        )
        for node, spec in builder.nodes.items()
    )
    return TestWorkflow(
        workflow_id=workflow_id,
        name=name,
        import_path=import_path,
        fingerprint=_graph_fingerprint(builder),
        nodes=nodes,
        edges=tuple(_edges(builder)),
    )


def _edges(builder: type_builder) -> Iterable[WorkflowEdge]:
    for source, target in sorted(builder.edges):
        yield WorkflowEdge(source=source, target=target)
    for sources, target in sorted(builder.waiting_edges):
        for source in sources:
            yield WorkflowEdge(source=source, target=target)
    for source, branches in sorted(builder.branches.items()):
        for branch in branches.values():
            targets = branch.ends.values() if branch.ends else [*builder.nodes, END]
            for target in targets:
                yield WorkflowEdge(source=source, target=target, conditional=True)
    for source, spec in builder.nodes.items():
        for target in spec.ends or ():
            yield WorkflowEdge(source=source, target=target, conditional=True)


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


def unshared_reasons(source: GraphSource) -> tuple[str, ...]:
    """Why no prefix may be shared with this graph, in words; empty if prefixes may be shared."""
    builder = source.builder
    reasons = [
        f"state key {key!r} is an UntrackedValue, which no checkpoint holds"
        for key, channel in builder.channels.items()
        if isinstance(channel, UntrackedValue)
    ]
    reasons += [
        f"state key {key!r} is a DeltaChannel, whose history a copied checkpoint does not carry"
        for key, channel in builder.channels.items()
        if type(channel).__name__ == "DeltaChannel"
    ]
    if source.store is not None:
        reasons.append("the graph was compiled with a store, which forks would share")
    subgraphs = {node: _subgraph(spec) for node, spec in builder.nodes.items()}
    reasons += [
        f"subgraph {node!r} keeps its own memory (checkpointer={graph.checkpointer})"
        for node, graph in subgraphs.items()
        if graph is not None and isinstance(graph.checkpointer, bool)
    ]
    managed = [key for key, kind in builder.managed.items() if _counts_steps(kind)]
    if managed and any(graph is not None for graph in subgraphs.values()):
        reasons.append(f"state key {managed[0]!r} counts steps and the graph has subgraphs")
    return tuple(reasons)


def _counts_steps(kind: Any) -> bool:
    return kind in (IsLastStepManager, RemainingStepsManager)


def _subgraph(spec: Any) -> Any:
    direct = spec.runnable
    if hasattr(direct, "checkpointer"):
        return direct
    return find_subgraph_pregel(direct)


def has_managed_steps(builder: type_builder) -> bool:
    """Whether nodes can see how many steps are left."""
    return any(_counts_steps(kind) for kind in builder.managed.values())


def allowed_types(builder: type_builder, extra: Iterable[type]) -> set[tuple[str, ...]]:
    """The classes a checkpoint of this graph may hold: those of its schemas, and the user's."""
    schemas = [builder.state_schema, builder.input_schema, builder.output_schema]
    schemas += [spec.input_schema for spec in builder.nodes.values()]
    found = build_serde_allowlist(schemas=schemas, channels=builder.channels)
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
