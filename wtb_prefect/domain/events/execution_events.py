"""Where executions begin, stop and go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wtb_prefect.domain.events.base import DomainEvent
from wtb_prefect.domain.execution import Execution, ExecutionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEvent(DomainEvent):
    """Of one execution: of a batch, or (`batch_id` is None) a single run."""

    execution_id: str
    batch_id: str | None
    case_id: str | None
    repeat: int
    choices: Mapping[str, str]

    @property
    def subject(self) -> str:
        return self.execution_id

    @classmethod
    def fields_of(cls, execution: Execution) -> dict[str, Any]:
        """What every event says of its execution."""
        return {
            "execution_id": execution.execution_id,
            "batch_id": execution.batch_id,
            "case_id": execution.case_id,
            "repeat": execution.repeat,
            "choices": dict(execution.choices),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted(ExecutionEvent):
    """Written to the ledger for the first time, at its start or at a fork."""

    name = "execution.started"

    parent_id: str | None = None


def started(execution: Execution, at: datetime) -> ExecutionStarted:
    """The event of an execution that is new in the ledger."""
    parent = execution.lineage.parent_id if execution.lineage else None
    return ExecutionStarted(at=at, **ExecutionEvent.fields_of(execution), parent_id=parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResumed(ExecutionEvent):
    """Goes on from its last record: `edited` are the keys of the state that were changed first."""

    name = "execution.resumed"

    edited: tuple[str, ...] = ()
    answered: int = 0
    stepping: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRetried(ExecutionEvent):
    """Waits `seconds`, then tries again after a transient error."""

    name = "execution.retried"

    retry: int
    error: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStopped(ExecutionEvent):
    """Does not run any more; how it ended is the subclass. Durations are in seconds."""

    status: str
    node_executions: int
    cache_hits: int
    duration: float
    next_nodes: tuple[str, ...]
    error: str | None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPaused(ExecutionStopped):
    """At a breakpoint, a question, after a step, rolled back, or because it or its batch was asked
    to."""

    name = "execution.paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCompleted(ExecutionStopped):
    """Reached the end of the graph."""

    name = "execution.completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionForked(ExecutionStopped):
    """A shared prefix that came to where its combinations differ; they go on from here."""

    name = "execution.forked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFailed(ExecutionStopped):
    """A node raised, or its time was over."""

    name = "execution.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCancelled(ExecutionStopped):
    """Was stopped for good."""

    name = "execution.cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCrashed(ExecutionStopped):
    """A store or the process failed, not the workflow."""

    name = "execution.crashed"


_STOPPED: Mapping[ExecutionStatus, type[ExecutionStopped]] = {
    ExecutionStatus.PAUSED: ExecutionPaused,
    ExecutionStatus.COMPLETED: ExecutionCompleted,
    ExecutionStatus.FAILED: ExecutionFailed,
    ExecutionStatus.CANCELLED: ExecutionCancelled,
    ExecutionStatus.CRASHED: ExecutionCrashed,
}


def stopped(execution: Execution, at: datetime, why: str | None = None) -> ExecutionStopped:
    """The event of an execution that does not run any more, by its status."""
    kind = ExecutionForked if execution.split_nodes else _STOPPED[execution.status]
    return kind(
        at=at,
        **ExecutionEvent.fields_of(execution),
        status=str(execution.status),
        node_executions=execution.node_executions,
        cache_hits=execution.cache_hits,
        duration=execution.duration,
        next_nodes=execution.next_nodes,
        error=str(execution.error) if execution.error else None,
        why=why,
    )
