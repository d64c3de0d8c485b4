"""Checkpoints as people see them, and the history of an execution over its whole lineage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import CheckpointId


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One recorded super-step: the nodes it completed and those that would run next."""

    checkpoint_id: CheckpointId
    execution_id: str
    step: int
    nodes: tuple[str, ...]
    next: tuple[str, ...]
    created_at: datetime
    file_commit_id: str | None
    parent_id: CheckpointId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """What a checkpoint store holds of one checkpoint: its values by channel and its metadata."""

    checkpoint_id: CheckpointId
    thread_id: str
    parent_id: CheckpointId | None
    step: int
    channel_values: Mapping[str, Any]
    metadata: Mapping[str, Any]
    pending_tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubgraphHeads:
    """Where the subgraphs of an execution stand: checkpoint namespace -> checkpoint.

    `under_way` are those of the super-step that has not ended, `standing` the memories of stateful
    subgraphs between two visits.
    """

    standing: Mapping[str, CheckpointId] = field(default_factory=dict)
    under_way: Mapping[str, CheckpointId] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, CheckpointId]:
        """Both."""
        return {**self.standing, **self.under_way}


def subgraph_heads(links: Iterable[CheckpointFileLink]) -> SubgraphHeads:
    """The heads that an execution's records leave, in the order of their sequence.

    A namespace with a task id (a `:`) ends with the super-step of that task.
    """
    standing: dict[str, CheckpointId] = {}
    under_way: dict[str, CheckpointId] = {}
    for link in links:
        if link.namespace:
            under_way[link.namespace] = link.checkpoint_id
        elif not link.pending:
            standing.update((ns, head) for ns, head in under_way.items() if ":" not in ns)
            under_way.clear()
    kept = {ns: head for ns, head in standing.items() if ns not in under_way}
    return SubgraphHeads(standing=kept, under_way=under_way)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpace:
    """What a checkpoint store takes on disk, and how much of that is free inside, in bytes."""

    on_disk: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionHistory:
    """All checkpoints an execution has behind it, oldest first, those of its ancestors included."""

    execution_id: str
    checkpoints: tuple[Checkpoint, ...] = field(default_factory=tuple)

    def get(self, checkpoint_id: str) -> Checkpoint | None:
        """The checkpoint of that id, or None."""
        return next((c for c in self.checkpoints if c.checkpoint_id == checkpoint_id), None)

    @property
    def latest(self) -> Checkpoint | None:
        """The newest checkpoint, or None before the first."""
        return self.checkpoints[-1] if self.checkpoints else None

    def path(self) -> tuple[str, ...]:
        """The nodes in the order they completed."""
        return tuple(node for checkpoint in self.checkpoints for node in checkpoint.nodes)

    def after(self, node: str) -> Checkpoint | None:
        """The checkpoint just after the last completed visit of a node, or None."""
        return next((c for c in reversed(self.checkpoints) if node in c.nodes), None)
