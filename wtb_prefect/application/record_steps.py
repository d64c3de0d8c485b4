"""Recording an execution: one ledger transaction per super-step, files before rows.

The order of every record is blobs durable -> checkpoint (or pending writes) -> one transaction
with execution, boundary, file and outbox rows. A crash between two of them leaves the ledger
behind the stores, never ahead, and resuming rewinds the stores to what the ledger says.

The transaction of a super-step is written when the next node body is about to run, or together
with the end of the execution: nothing can be lost in between but what no body has done. The last
step, a fork, and LangGraph's two checkpoints before the first node so cost no transaction of
their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from wtb_prefect.domain.execution import Execution, Lineage, NodeFailure
from wtb_prefect.domain.file_processing import (
    CheckpointFileLink,
    FileCommit,
    FileMemento,
    commit_id_of,
)
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import TaskStart
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.node_boundary import BoundaryStatus, NodeBoundary
from wtb_prefect.domain.outbox import OutboxEvent, OutboxEventType, event_id
from wtb_prefect.domain.workflow import ORIGINAL
from wtb_prefect.errors import InfrastructureError


@dataclass(slots=True)
class _Visit:
    """A node of the current super-step."""

    node: str
    replayed: bool
    started_at: datetime
    started: float
    calls: int = 0
    duration: float = 0.0
    usage: tuple[int, int] = (0, 0)
    finished: bool = False
    saved: bool = False
    error: NodeFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """The rows of one checkpoint, or of one set of pending writes."""

    boundaries: list[NodeBoundary]
    exits: list[str]
    link: CheckpointFileLink
    commit: FileCommit | None
    events: list[OutboxEvent]


@dataclass(slots=True)
class Usage:
    """What an execution spent since this recorder began."""

    bodies: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class StepRecorder:
    """The `StepObserver` of one execution.

    `tree` is what the workspace held at the last commit; `fingerprint` gives the identity of a
    node's code under the execution's choices.
    """

    execution: Execution
    workspace: Workspace
    tree: Mapping[str, FileMemento]
    open_uow: OpenUnitOfWork
    clock: Clock
    fingerprint: Callable[[str, str], str]
    sequence: int = 0
    unsaved_execution: bool = True
    spent: Usage = field(default_factory=Usage)
    head: CheckpointId | None = field(init=False)
    step: int = field(init=False)
    commit_id: str | None = field(init=False)
    _visits: dict[str, _Visit] = field(default_factory=dict)
    _uncounted: int = 0
    _bodies_lock: threading.Lock = field(default_factory=threading.Lock)
    _commit: FileCommit | None = None
    _unwritten: list[_Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.head = self.execution.head
        self.step = self.execution.step
        self.commit_id = self.execution.commit_id

    def task_started(self, task: TaskStart) -> None:
        """See `StepObserver.task_started`; what bodies did before has to be durable first."""
        if any(record.boundaries or record.exits for record in self._unwritten):
            self.flush()
        self._visits[task.task_id] = _Visit(
            task.node, task.replayed, self.clock.now(), self.clock.elapsed()
        )

    def body_called(self, task_id: str) -> None:
        """See `StepObserver.body_called`; sync nodes call from threads."""
        with self._bodies_lock:
            self._uncounted += 1
            if (visit := self._visits.get(task_id)) is not None:
                visit.calls += 1

    async def task_finished(self, task_id: str, usage: tuple[int, int]) -> bool:
        """See `StepObserver.task_finished`."""
        visit = self._visits.get(task_id)
        if visit is None:
            # LangGraph's own task, for the input; with no node beside it its checkpoint follows.
            return bool(self._visits)
        self._end(visit)
        visit.usage = usage
        self.spent.input_tokens += usage[0]
        self.spent.output_tokens += usage[1]
        running = [other for other in self._visits.values() if not other.replayed]
        if len(running) == 1:
            return False
        await self.checkpoint_coming()
        return True

    def task_saved(self, task_id: str) -> None:
        """See `StepObserver.task_saved`: files and boundary belong to the pending writes now."""
        visit = self._visits.get(task_id)
        if visit is None or self.head is None:
            return
        boundary = self._boundary(task_id, visit, None)
        self._record([boundary], [], self.head, None, pending=True)
        self.flush()
        visit.saved = True

    def task_failed(self, task_id: str, error: NodeFailure) -> None:
        """See `StepObserver.task_failed`; the row is written when the execution ends."""
        visit = self._visits.get(task_id)
        if visit is None:
            return
        self._end(visit)
        visit.error = NodeFailure(
            node=visit.node, type=error.type, message=error.message, traceback=error.traceback
        )

    def attributed(self, error: NodeFailure) -> NodeFailure:
        """What ended the run, with the node of the current super-step that raised it, if one did.

        Several siblings may fail at once, and a failure that an error handler took is none.
        """
        failures = (visit.error for visit in self._visits.values() if visit.error is not None)
        same = (f for f in failures if (f.type, f.message) == (error.type, error.message))
        return next(same, error)

    async def checkpoint_coming(self) -> None:
        """See `StepObserver.checkpoint_coming`."""
        if not self.workspace.is_made:
            return
        # Hashing many or large files would hold up every other execution of this process.
        snapshot = await asyncio.to_thread(self.workspace.snapshot)
        if snapshot is None:
            return
        changed, removed = snapshot.changes_since(self.tree)
        if changed or removed:
            self._commit = FileCommit(
                commit_id=commit_id_of(self.commit_id, changed, removed),
                parent_id=self.commit_id,
                execution_id=self.execution.execution_id,
                changed=changed,
                removed=removed,
                created_at=self.clock.now(),
            )
            self.tree = snapshot.files

    def checkpoint_saved(
        self, checkpoint_id: CheckpointId, parent_id: CheckpointId | None, step: int
    ) -> None:
        """See `StepObserver.checkpoint_saved`."""
        boundaries, exits = self._ended_visits(checkpoint_id)
        self._record(boundaries, exits, checkpoint_id, parent_id, pending=False, step=step)
        self.head, self.step = checkpoint_id, step
        self._visits.clear()

    def begin_at(self, lineage: Lineage) -> None:
        """Notes where a fork begins; written with what follows."""
        self._record([], [], lineage.checkpoint_id, None, pending=False, claimed=False)

    def flush(self) -> None:
        """Writes what is not in the ledger yet, in one transaction."""
        if self._unwritten or self.unsaved_execution:
            with self.open_uow(write=True) as uow:
                bodies = self._write(uow)
                uow.commit()
            self._written(bodies)

    def show(self) -> None:
        """The same for onlookers: a ledger that is busy now will have it with the next record."""
        with suppress(InfrastructureError):
            self.flush()

    def write_end(self, uow: UnitOfWork) -> None:
        """Writes what is left, failed visits included, within the caller's transaction."""
        self._written(self._write(uow))
        with self._bodies_lock:
            self.spent.bodies += self._uncounted
            self._uncounted = 0
        failed = [
            self._boundary(task_id, visit, None)
            for task_id, visit in self._visits.items()
            if visit.error is not None
        ]
        if failed:
            uow.node_boundaries.save_many(failed)

    def _end(self, visit: _Visit) -> None:
        visit.finished = True
        visit.duration = self.clock.elapsed() - visit.started
        if visit.calls == 0:  # a subgraph or composed runnable, which does not report its calls
            visit.calls = 1
            self._uncounted += 1

    def _write(self, uow: UnitOfWork) -> int:
        """Adds the rows; answers the node bodies they count. Nothing is forgotten before the
        caller's transaction is committed."""
        if self.unsaved_execution:
            uow.executions.save(self.execution)
        with self._bodies_lock:
            # A body that is still running is not saved work: it counts when its visit ends.
            running = (visit.calls for visit in self._visits.values() if not visit.finished)
            bodies = self._uncounted - sum(running)
        for record in self._unwritten:
            self._write_record(uow, record)
        if self._unwritten and self.head is not None:
            uow.executions.advance(
                self.execution.execution_id, self.head, self.step, self.commit_id, bodies
            )
            return bodies
        return 0

    def _write_record(self, uow: UnitOfWork, record: _Record) -> None:
        if record.boundaries:
            uow.node_boundaries.save_many(record.boundaries)
        if record.exits:
            uow.node_boundaries.set_exit(
                self.execution.execution_id, record.exits, record.link.checkpoint_id
            )
        if record.commit is not None:
            uow.file_commits.add(record.commit)
        uow.checkpoint_files.save(record.link)
        uow.outbox.add_many(record.events)

    def _written(self, bodies: int) -> None:
        self.unsaved_execution = False
        self._unwritten.clear()
        with self._bodies_lock:
            self._uncounted -= bodies
        self.spent.bodies += bodies

    def _ended_visits(self, checkpoint_id: CheckpointId) -> tuple[list[NodeBoundary], list[str]]:
        """Boundaries of visits that this checkpoint ends: new ones, and the tasks of saved ones."""
        fresh = [
            self._boundary(task_id, visit, checkpoint_id)
            for task_id, visit in self._visits.items()
            if visit.finished and not visit.saved and not visit.replayed
        ]
        recorded = (task for task, visit in self._visits.items() if visit.saved or visit.replayed)
        return fresh, list(recorded)

    def _boundary(
        self, task_id: str, visit: _Visit, exit_checkpoint: CheckpointId | None
    ) -> NodeBoundary:
        variant = self.execution.choices.get(visit.node, ORIGINAL)
        return NodeBoundary(
            execution_id=self.execution.execution_id,
            task_id=task_id,
            node=visit.node,
            step=self.step + 1,
            variant=variant,
            fingerprint=self.fingerprint(visit.node, variant),
            status=BoundaryStatus.FAILED if visit.error else BoundaryStatus.COMPLETED,
            entry_checkpoint_id=self.head,
            exit_checkpoint_id=exit_checkpoint,
            started_at=visit.started_at,
            duration=visit.duration,
            calls=visit.calls,
            error=visit.error,
            input_tokens=visit.usage[0],
            output_tokens=visit.usage[1],
        )

    def _record(
        self,
        boundaries: list[NodeBoundary],
        exits: list[str],
        checkpoint_id: CheckpointId,
        parent_id: CheckpointId | None,
        *,
        pending: bool,
        step: int | None = None,
        claimed: bool = True,
    ) -> None:
        now = self.clock.now()
        events: list[OutboxEvent] = []
        commit, self._commit = self._commit, None
        if commit is not None:
            self.commit_id = commit.commit_id
            events.append(self._event(OutboxEventType.FILE_COMMIT_VERIFY, self.commit_id, now))
        link = CheckpointFileLink(
            execution_id=self.execution.execution_id,
            checkpoint_id=checkpoint_id,
            commit_id=self.commit_id,
            pending=pending,
            sequence=self.sequence,
            step=self.step if step is None else step,
            created_at=now,
            parent_checkpoint_id=parent_id,
            nodes=tuple(v.node for v in self._visits.values() if v.finished or v.replayed),
        )
        self.sequence += 1
        if not pending:
            events.append(self._event(OutboxEventType.CHECKPOINT_VERIFY, checkpoint_id, now))
        if self.commit_id is not None:
            subject = f"{checkpoint_id}:{self.commit_id}"
            events.append(self._event(OutboxEventType.CHECKPOINT_FILE_LINK_VERIFY, subject, now))
        self._unwritten.append(
            _Record(
                boundaries=boundaries,
                exits=exits,
                link=link,
                commit=commit,
                events=events if claimed else [],
            )
        )

    def _event(self, kind: OutboxEventType, subject: str, now: datetime) -> OutboxEvent:
        execution_id = self.execution.execution_id
        return OutboxEvent(
            event_id=event_id(kind, execution_id, subject),
            type=kind,
            aggregate_id=execution_id,
            payload={"execution_id": execution_id, "subject": subject},
            created_at=now,
        )
