"""One run of a workflow on its own thread, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from wtb_prefect.domain.identifiers import CheckpointId


class ExecutionStatus(StrEnum):
    """Where an execution stands; `crashed` is infrastructure's fault, not the workflow's."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def is_final(self) -> bool:
        """Whether the execution ended by itself: done, or failed in the workflow."""
        return self in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)


class ExecutionKind(StrEnum):
    """`cell`: a leaf that answers cells; `segment`: a trunk that forked; `run`: a single run."""

    CELL = "cell"
    SEGMENT = "segment"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFailure:
    """Why an execution failed: the node that raised (None: before any node) and its exception."""

    node: str | None
    type: str
    message: str
    traceback: str

    def __str__(self) -> str:
        where = f"node {self.node!r}: " if self.node else ""
        return f"{where}{self.type}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where an execution began: the parent, its checkpoint and the file commit of that point."""

    parent_id: str
    checkpoint_id: CheckpointId
    commit_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What an execution took over from an earlier run, at whose checkpoint it begins.

    Counted once, when it begins, over the whole lineage up to there: the earlier run may have gone
    on from that checkpoint in another way. `duration` is in seconds. `pending`: the writes pending
    at the checkpoint came along, as with every fork of a trunk.
    """

    node_executions: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    duration: float = 0.0
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run on the LangGraph thread `wtb-{execution_id}`.

    `choices` are the variants in force by node; `gated` the nodes that still differ between the
    combinations that share this execution; `path` the splits that led here, as (node, variant).
    `head` and `commit_id` name the latest recorded checkpoint and files: they, not "the newest row
    of the checkpoint store", say where the execution stands.

    `root_key` names what every result of the same case and repeat depends on (graph, case, files):
    only within it may one execution go on from another's checkpoint. `answers` says which answer
    each question of `interrupt()` got since the start (question -> index), `retries` counts the
    attempts after a transient error, `cache_hits` the visits that a cache answered. `inherited` is
    set where the lineage leads into an earlier run: what came before is counted there.
    """

    execution_id: str
    workflow_id: str
    kind: ExecutionKind
    status: ExecutionStatus
    choices: Mapping[str, str]
    created_at: datetime
    batch_id: str | None = None
    case_id: str | None = None
    repeat: int = 0
    path: tuple[tuple[str, str], ...] = ()
    gated: tuple[str, ...] = ()
    lineage: Lineage | None = None
    head: CheckpointId | None = None
    step: int = -2
    commit_id: str | None = None
    split_nodes: tuple[str, ...] = ()
    next_nodes: tuple[str, ...] = ()
    error: NodeFailure | None = None
    unshared_reason: str | None = None
    node_executions: int = 0
    cache_hits: int = 0
    retries: int = 0
    answers: Mapping[str, int] = field(default_factory=dict)
    root_key: str | None = None
    inherited: Inherited | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    duration: float = 0.0
    finished_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_pruned(self) -> bool:
        """Whether its checkpoints are gone: all of a trunk's, all but the last of a leaf's."""
        return bool(self.metadata.get("pruned"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionState:
    """The values of an execution at one checkpoint, and what would run next."""

    execution_id: str
    checkpoint_id: CheckpointId
    values: Mapping[str, Any]
    next_nodes: tuple[str, ...]
