"""One visit of one node: where it began, where it ended, which code ran."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from wtb_prefect.domain.execution import NodeFailure
from wtb_prefect.domain.identifiers import CheckpointId


class BoundaryStatus(StrEnum):
    """How the visit ended."""

    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBoundary:
    """A visit of a node (a node in a loop has one per visit).

    `exit_checkpoint_id` is None while the visit's writes are only pending (a sibling stopped at a
    gate, or the step has not ended). `calls` counts node bodies: retries call the body again.
    `duration` is in seconds. `namespace` is LangGraph's checkpoint namespace, empty for the top
    graph; the entry and exit checkpoints of a visit inside a subgraph are those of its namespace.
    `cached`: no body ran, the node result cache (or LangGraph's node cache) answered.
    """

    execution_id: str
    task_id: str
    node: str
    step: int
    variant: str
    fingerprint: str
    status: BoundaryStatus
    entry_checkpoint_id: CheckpointId | None
    exit_checkpoint_id: CheckpointId | None
    started_at: datetime
    duration: float
    calls: int
    error: NodeFailure | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    namespace: str = ""
    cached: bool = False
