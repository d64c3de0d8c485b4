"""A workflow as the bench sees it: nodes, edges and the variants of nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ORIGINAL = "original"
"""The variant name of a node as the graph itself has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowNode:
    """One node of the graph; `fingerprint` identifies the code of its original."""

    name: str
    fingerprint: str
    deferred: bool = False
    is_subgraph: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowEdge:
    """A connection; `conditional` edges are decided by a router function at run time."""

    source: str
    target: str
    conditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TestWorkflow:
    """A graph under test. `fingerprint` covers topology, state schema and every router."""

    __test__ = False  # pytest would take the name for a test class

    workflow_id: str
    name: str
    import_path: str | None
    fingerprint: str
    nodes: tuple[WorkflowNode, ...]
    edges: tuple[WorkflowEdge, ...]

    def node_names(self) -> tuple[str, ...]:
        """Names of all nodes, in the graph's order."""
        return tuple(node.name for node in self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVariant:
    """A registered implementation of one node, as the ledger keeps it."""

    variant_id: str
    workflow_id: str
    node: str
    name: str
    fingerprint: str
    version: str | None
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSpec:
    """A variant as the user declared it: the implementation and what identifies it.

    `depends_on` are paths (files or folders) whose content counts as part of the code.
    """

    node: str
    name: str
    implementation: Callable[..., Any]
    version: str | None = None
    depends_on: tuple[str, ...] = ()
