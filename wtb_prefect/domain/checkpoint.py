"""Checkpoints as people see them, and the history of an execution over its whole lineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

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
