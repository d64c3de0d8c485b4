"""What a recorder keeps of visits and checkpoints until they are in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from wtb_prefect.domain.events import checkpoint_created, files_committed, node_ended
from wtb_prefect.domain.execution import Execution, NodeFailure
from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.mock_node import KeptOutput
from wtb_prefect.domain.node_boundary import BoundaryStatus, NodeBoundary
from wtb_prefect.domain.node_result import NodeResult, ReturnValue
from wtb_prefect.domain.outbox import OutboxEvent, OutboxEventType, event_id

KeepOutput = Callable[[str, str, KeptOutput], NodeResult]
"""Makes the row of what a node (1) returned for a task (2)."""

ACTOR = "record_steps"
"""Who did it, in the audit log."""


@dataclass(slots=True)
class Visit:
    """A node of a super-step under way; `calls` are its bodies, retries included, `result` what it
    returned, where the batch records it."""

    node: str
    namespace: str
    started_at: datetime
    started: float
    mocked: bool = False
    replayed: bool = False
    opened: bool = False
    calls: int = 0
    duration: float = 0.0
    usage: tuple[int, int] = (0, 0)
    finished: bool = False
    saved: bool = False
    kept: ReturnValue | None = None
    error: NodeFailure | None = None
    result: NodeResult | None = None

    @property
    def cached(self) -> bool:
        """Whether a cache answered: it finished, and no body of it ran."""
        answered = self.finished and self.error is None
        return answered and not (self.calls or self.opened or self.replayed or self.mocked)

    @property
    def is_cut_off(self) -> bool:
        """Whether it had no end of its own; LangGraph reports some as cancelled."""
        if self.error is not None:
            return self.error.type == "CancelledError"
        return not (self.finished or self.replayed)


def cut_off(visits: Iterable[Visit]) -> list[Visit]:
    """Those that had no end of their own, the innermost first."""
    return sorted((visit for visit in visits if visit.is_cut_off), key=lambda visit: visit.opened)


def attributed(error: NodeFailure, visits: Iterable[Visit]) -> NodeFailure:
    """What ended a run, with the node of the current super-step that raised it, if one did.

    Several siblings may fail at once, and a failure that an error handler took is none. Inside a
    subgraph the innermost node is the one that raised.
    """
    failures = (visit.error for visit in visits if visit.error is not None)
    same = [f for f in failures if (f.type, f.message) == (error.type, error.message)]
    return max(same, key=lambda f: (f.node or "").count("|"), default=error)


def runs_alone(visit: Visit, others: Iterable[Visit]) -> bool:
    """Whether nothing else runs, or has run since the last checkpoint, but what encloses it."""
    beside = [other for other in others if other is not visit and not other.replayed]
    around = [part for part in visit.namespace.split("|") if part and not part.isdigit()]
    return len(beside) == len(around) and all(other.opened for other in beside)


def result_of(
    visit: Visit, value: ReturnValue, execution: Execution, commit: FileCommit | None, now: datetime
) -> NodeResult:
    """What is kept of a visit: what its node returned, and what it did to the files."""
    return NodeResult(
        key=value.key,
        workflow_id=execution.workflow_id,
        node=value.node,
        fingerprint=value.fingerprint,
        encoding=value.encoding,
        payload=value.payload,
        changed=commit.changed if commit else (),
        removed=commit.removed if commit else (),
        seconds=visit.duration,
        created_at=now,
        execution_id=execution.execution_id,
    )


@dataclass(slots=True)
class Front:
    """Where one graph of the execution stands: the top one (""), or a subgraph's namespace."""

    head: CheckpointId | None
    step: int
    visits: dict[str, Visit] = field(default_factory=dict)


def boundary_of(
    execution: Execution,
    code: tuple[str, str],
    task_id: str,
    front: Front,
    visit: Visit,
    exit_checkpoint: CheckpointId | None,
) -> NodeBoundary:
    """The row of a visit; `code` is the variant that ran, and its fingerprint."""
    variant, fingerprint = code
    return NodeBoundary(
        execution_id=execution.execution_id,
        task_id=task_id,
        node=visit.node,
        step=front.step + 1,
        variant=variant,
        fingerprint=fingerprint,
        status=BoundaryStatus.FAILED if visit.error else BoundaryStatus.COMPLETED,
        entry_checkpoint_id=front.head,
        exit_checkpoint_id=exit_checkpoint,
        started_at=visit.started_at,
        duration=visit.duration,
        calls=visit.calls,
        error=visit.error,
        input_tokens=visit.usage[0],
        output_tokens=visit.usage[1],
        namespace=visit.namespace,
        cached=visit.cached,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The rows of one checkpoint, or of one set of pending writes."""

    boundaries: list[NodeBoundary]
    exits: list[str]
    link: CheckpointFileLink
    commit: FileCommit | None
    events: list[OutboxEvent]
    results: tuple[NodeResult, ...] = ()

    @property
    def has_visits(self) -> bool:
        """Whether it says anything of bodies that ran."""
        return bool(self.boundaries or self.exits)

    def write(self, uow: UnitOfWork, execution: Execution) -> None:
        """Adds the rows to a unit of work."""
        if self.boundaries:
            uow.node_boundaries.save_many(self.boundaries)
            tell_visits(uow, self.boundaries, execution, self.link.created_at)
        if self.exits:
            link = self.link
            uow.node_boundaries.set_exit(link.execution_id, self.exits, link.checkpoint_id)
        if self.commit is not None:
            uow.file_commits.add(self.commit)
            uow.record(files_committed(self.commit), ACTOR)
        for result in self.results:
            uow.node_results.add(result)
        uow.checkpoint_files.save(self.link)
        uow.outbox.add_many(self.events)
        if any(event.type is OutboxEventType.CHECKPOINT_VERIFY for event in self.events):
            uow.record(checkpoint_created(self.link, execution.batch_id), ACTOR)


def tell_visits(
    uow: UnitOfWork, visits: Iterable[NodeBoundary], execution: Execution, now: datetime
) -> None:
    """Of visits that are over, once the unit of work is committed."""
    for visit in visits:
        uow.record(node_ended(visit, execution.batch_id, now), ACTOR)


@dataclass(slots=True)
class Spent:
    """What an execution spent since a recorder began, or what of it is not written yet."""

    bodies: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def claims_of(link: CheckpointFileLink) -> list[OutboxEvent]:
    """What a record claims of other stores: its checkpoint, if one was saved, and its files."""
    claims = []
    execution_id, checkpoint_id, now = link.execution_id, link.checkpoint_id, link.created_at
    if not link.pending:
        claims.append(claim(OutboxEventType.CHECKPOINT_VERIFY, execution_id, checkpoint_id, now))
    if link.commit_id is not None:
        subject = f"{checkpoint_id}:{link.commit_id}"
        kind = OutboxEventType.CHECKPOINT_FILE_LINK_VERIFY
        claims.append(claim(kind, execution_id, subject, now))
    return claims


def claim(kind: OutboxEventType, execution_id: str, subject: str, now: datetime) -> OutboxEvent:
    """One claim to verify."""
    return OutboxEvent(
        event_id=event_id(kind, execution_id, subject),
        type=kind,
        aggregate_id=execution_id,
        payload={"execution_id": execution_id, "subject": subject},
        created_at=now,
    )
