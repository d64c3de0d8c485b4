"""Visits of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wtb_prefect.domain.events.base import DomainEvent
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.mock_node import MOCK
from wtb_prefect.domain.node_boundary import BoundaryStatus, NodeBoundary


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent(DomainEvent):
    """Of one visit of a node; `namespace` is LangGraph's, empty for the top graph."""

    of_steps = True

    execution_id: str
    batch_id: str | None
    node: str
    task_id: str
    namespace: str

    @property
    def subject(self) -> str:
        return f"{self.execution_id}/{self.node}/{self.task_id}"

    @property
    def aggregate_id(self) -> str:
        return self.execution_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted(NodeEvent):
    """A body of the node is called; retries call it again."""

    name = "node.started"


def node_started(
    execution: Execution, task_id: str, node: str, namespace: str, at: datetime
) -> NodeStarted:
    """The event of a body that is being called."""
    return NodeStarted(
        at=at,
        execution_id=execution.execution_id,
        batch_id=execution.batch_id,
        node=node,
        task_id=task_id,
        namespace=namespace,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnded(NodeEvent):
    """A visit is over; how is the subclass. `duration` is in seconds."""

    variant: str
    duration: float
    calls: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCompleted(NodeEnded):
    """Its bodies ran, and what it returned is recorded."""

    name = "node.completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSkipped(NodeEnded):
    """No body ran: a cache or a mock answered."""

    name = "node.skipped"

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFailed(NodeEnded):
    """It raised, or was stopped."""

    name = "node.failed"

    error: str


def node_ended(boundary: NodeBoundary, batch_id: str | None, at: datetime) -> NodeEnded:
    """The event of a recorded visit."""
    said: dict[str, Any] = {
        "at": at,
        "execution_id": boundary.execution_id,
        "batch_id": batch_id,
        "node": boundary.node,
        "task_id": boundary.task_id,
        "namespace": boundary.namespace,
        "variant": boundary.variant,
        "duration": boundary.duration,
        "calls": boundary.calls,
        "input_tokens": boundary.input_tokens,
        "output_tokens": boundary.output_tokens,
    }
    if boundary.status is BoundaryStatus.FAILED:
        return NodeFailed(**said, error=str(boundary.error))
    if boundary.variant == MOCK:
        return NodeSkipped(**said, reason="mocked")
    return NodeSkipped(**said, reason="cached") if boundary.cached else NodeCompleted(**said)
