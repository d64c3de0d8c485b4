"""Batch tests, their variants, and the processes that run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wtb_prefect.domain.events.base import DomainEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEvent(DomainEvent):
    """Of one batch test of a project."""

    batch_id: str
    project: str

    @property
    def subject(self) -> str:
        return self.batch_id


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStarted(BatchEvent):
    """Claimed by a process that runs it now; `cells` are all it has."""

    name = "batch.started"

    runner: str
    cells: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEnded(BatchEvent):
    """Its books are closed; how is the subclass. `cells` counts them by status."""

    status: str
    cells: Mapping[str, int]
    node_executions: int
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFinished(BatchEnded):
    """Ran to its end; cells of it may have failed."""

    name = "batch.finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInterrupted(BatchEnded):
    """By Ctrl-C; the same request goes on."""

    name = "batch.interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCancelled(BatchEnded):
    """By SIGTERM or a cancelled flow run; the same request goes on."""

    name = "batch.cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFailed(BatchEnded):
    """By an error outside of its cells (`reason`); the same request goes on."""

    name = "batch.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantCompleted(DomainEvent):
    """Every cell of one combination of a batch has its end; `cells` counts them by status."""

    name = "variant.completed"

    batch_id: str
    combination: str
    cells: Mapping[str, int]

    @property
    def subject(self) -> str:
        return f"{self.batch_id}/{self.combination}"

    @property
    def aggregate_id(self) -> str:
        return self.batch_id


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(DomainEvent):
    """A process takes up a chunk of a batch's stretches."""

    name = "worker.started"

    batch_id: str
    host: str
    pid: int
    items: int

    @property
    def subject(self) -> str:
        return f"{self.host}-{self.pid}"

    @property
    def aggregate_id(self) -> str:
        return self.batch_id
