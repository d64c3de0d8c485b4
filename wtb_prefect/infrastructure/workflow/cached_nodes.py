"""Which nodes are declared as cached, checked against the graph; and what they see of the state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wtb_prefect.domain.node_result import CachedNode
from wtb_prefect.domain.workflow import ORIGINAL, VariantSpec
from wtb_prefect.errors import GraphError, NotFoundError, StateError
from wtb_prefect.infrastructure.workflow.compile_graph import SEPARATOR, called_graph
from wtb_prefect.infrastructure.workflow.inspect_graph import opened
from wtb_prefect.infrastructure.workflow.node_swap import type_builder

CachedNodes = Mapping[tuple[str, str], tuple[CachedNode, frozenset[str]]]
"""(node, variant) -> its declaration and the state keys of its graph."""


def declared_nodes(
    builder: type_builder, cached: Iterable[CachedNode], variants: Iterable[VariantSpec]
) -> CachedNodes:
    """The declarations, by what they are about.

    Raises:
        NotFoundError: no such node, variant or state key.
        GraphError: the node is a subgraph, whose own nodes run.
    """
    known = {
        f"{path}{SEPARATOR}{name}" if path else name: (graph, name)
        for path, graph in opened(builder)
        for name in graph.nodes
    }
    names: dict[str, list[str]] = {}
    for variant in variants:
        names.setdefault(variant.node, [ORIGINAL]).append(variant.name)
    found = {}
    # Declarations of one variant come last, and replace those of all.
    for spec in sorted(cached, key=lambda spec: spec.variant is not None):
        if spec.node not in known:
            raise NotFoundError("node to be cached", spec.node, known)
        graph, name = known[spec.node]
        implementations = names.get(spec.node, [ORIGINAL])
        if spec.variant is not None and spec.variant not in implementations:
            raise NotFoundError(f"variant of node {spec.node!r}", spec.variant, implementations)
        for key in spec.reads:
            if key not in graph.channels:
                raise NotFoundError(f"state key read by node {spec.node!r}", key, graph.channels)
        if called_graph(graph.nodes[name].runnable) is not None:
            raise GraphError(
                f"node {spec.node!r} is or calls a subgraph: it cannot be cached as a whole"
            )
        for variant_name in [spec.variant] if spec.variant else implementations:
            found[spec.node, variant_name] = (spec, frozenset(graph.channels))
    return found


class DeclaredState(dict[str, Any]):
    """The state as a cached node may see it: asking for a key it did not declare is an error."""

    def __init__(self, state: Mapping[str, Any], spec: CachedNode, state_keys: frozenset[str]):
        super().__init__({name: state[name] for name in spec.reads if name in state})
        self._spec = spec
        self._hidden = (state_keys | state.keys()) - set(spec.reads)

    def __missing__(self, key: str) -> Any:
        self._check(key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        self._check(key)
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As a dict's, for declared keys."""
        self._check(key)
        return super().get(key, default)

    def _check(self, key: object) -> None:
        if key in self._hidden:
            reads = ", ".join(map(repr, (*self._spec.reads, key)))
            raise StateError(
                f"node {self._spec.node!r} is declared as cached and reads state key {key!r}, "
                f"which is not declared: project.cached({self._spec.node!r}, reads=[{reads}])"
            )
