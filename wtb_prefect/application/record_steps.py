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

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from wtb_prefect.application.step_files import StepFiles
from wtb_prefect.application.step_records import (
    ACTOR,
    Front,
    KeepOutput,
    Record,
    Spent,
    Visit,
    attributed,
    boundary_of,
    claim,
    claims_of,
    cut_off,
    result_of,
    runs_alone,
    tell_visits,
)
from wtb_prefect.domain.checkpoint import SubgraphHeads
from wtb_prefect.domain.events import ExecutionEvent, Tell, node_started, tell_nobody
from wtb_prefect.domain.execution import Execution, Lineage, NodeFailure
from wtb_prefect.domain.file_processing import (
    CheckpointFileLink,
)
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import SavedCheckpoint, TaskStart
from wtb_prefect.domain.mock_node import MOCK, KeptOutput
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.node_result import NodeResult, NodeStart, ReturnValue
from wtb_prefect.domain.outbox import OutboxEvent, OutboxEventType
from wtb_prefect.errors import InfrastructureError

ImplementationOf = Callable[[str, Mapping[str, str]], tuple[str, str]]


@dataclass(slots=True)
class StepRecorder:
    """The `StepObserver` of one execution.

    `files` are those of its workspace and store; `implementation_of` gives variant and fingerprint
    of a node's code under the execution's choices; `heads` is where subgraphs stand; `use_cache`:
    results of nodes may be kept and used; `mocked` are the nodes that are answered for, with the
    mocks' fingerprints; `keep` makes a row of what a recorded node returned; `begun` is told with
    the first record, `tell` of bodies as they are called.
    """

    execution: Execution
    files: StepFiles
    open_uow: OpenUnitOfWork
    clock: Clock
    implementation_of: ImplementationOf
    sequence: int = 0
    unsaved_execution: bool = True
    use_cache: bool = False
    heads: SubgraphHeads = field(default_factory=SubgraphHeads)
    mocked: Mapping[str, str] = field(default_factory=dict)
    keep: KeepOutput | None = None
    tell: Tell = tell_nobody
    begun: ExecutionEvent | None = None
    spent: Spent = field(default_factory=Spent)
    answers: Mapping[str, int] = field(init=False)
    _fronts: dict[str, Front] = field(init=False)
    _unwritten_spent: Spent = field(default_factory=Spent)
    _unwritten: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = self.execution.answers
        self._fronts = {ns: Front(head, -2) for ns, head in self.heads.all.items()}
        self._fronts[""] = Front(self.execution.head, self.execution.step)

    @property
    def head(self) -> CheckpointId | None:
        """The latest recorded checkpoint of the top graph."""
        return self._fronts[""].head

    @property
    def step(self) -> int:
        """The super-step of `head`."""
        return self._fronts[""].step

    def task_started(self, task: TaskStart) -> None:
        """See `StepObserver.task_started`; what bodies did before has to be durable first."""
        if any(record.has_visits for record in self._unwritten):
            self.flush()
        visit = self._visit(task.task_id, task.node, task.namespace)
        visit.replayed, visit.opened = task.replayed, task.opened

    def body_called(self, task_id: str, node: str, namespace: str) -> None:
        """See `StepObserver.body_called`."""
        self._visit(task_id, node, namespace).calls += 1
        self._unwritten_spent.bodies += 1
        self.tell(node_started(self.execution, task_id, node, namespace, self.clock.now()))

    async def node_start(self, task_id: str) -> NodeStart | None:
        """See `StepObserver.node_start`; the files have to be those of the last commit."""
        found = self._find(task_id)
        if not self.use_cache or found is None:
            return None
        if not runs_alone(found[1], (visit for _, _, visit in self._open_visits())):
            return None
        if not await self.files.are_as_recorded():
            return None
        files = self.files
        return NodeStart(
            batch_id=self.execution.batch_id, commit_id=files.commit_id, tree=files.tree
        )

    async def replay(self, result: NodeResult) -> None:
        """See `StepObserver.replay`; the next record commits the files."""
        if result.changed or result.removed:
            await self.files.replay(result.changed, result.removed)

    def keep_result(self, task_id: str, value: ReturnValue) -> None:
        """See `StepObserver.keep_result`."""
        if (found := self._find(task_id)) is not None:
            found[1].kept = value

    async def task_finished(self, task_id: str, namespace: str, usage: tuple[int, int]) -> bool:
        """See `StepObserver.task_finished`."""
        visits = self._front(namespace).visits
        visit = visits.get(task_id)
        if visit is None:
            # LangGraph's own task, for the input; with no node beside it its checkpoint follows.
            return bool(visits)
        self._end(visit)
        if visit.cached:
            usage = (0, 0)  # spent by whoever ran the body
        visit.usage = usage
        self.spent.input_tokens += usage[0]
        self.spent.output_tokens += usage[1]
        running = [other for other in visits.values() if not other.replayed]
        if len(running) == 1:
            return False
        await self.checkpoint_coming()
        return True

    def task_saved(self, task_id: str) -> None:
        """See `StepObserver.task_saved`: files and boundary belong to the pending writes now."""
        found = self._find(task_id)
        if found is None:
            return
        front, visit = found
        if front.head is None:
            return
        boundary = self._boundary(task_id, front, visit, None)
        self._record(visit.namespace, front.head, [boundary], [])
        self.flush()
        visit.saved = True

    def task_failed(self, task_id: str, error: NodeFailure) -> None:
        """See `StepObserver.task_failed`; the row is written when the execution ends."""
        found = self._find(task_id)
        if found is None:
            return
        _, visit = found
        visit.error = replace(error, node=visit.node)
        self._end(visit)

    def cut_off(self, failure_of: Callable[[tuple[str, ...]], NodeFailure]) -> NodeFailure:
        """Fails the visits that were stopped; told of their nodes, `failure_of` says how."""
        running = cut_off(visit for _, _, visit in self._open_visits())
        failure = failure_of(tuple(visit.node for visit in running))
        for visit in running:
            visit.error = replace(failure, node=visit.node)
            self._end(visit)
        return failure

    def attributed(self, error: NodeFailure) -> NodeFailure:
        """See `step_records.attributed`, of the visits of now."""
        return attributed(error, (visit for _, _, visit in self._open_visits()))

    async def output_returned(self, task_id: str, place: str, output: Any) -> None:
        """See `StepObserver.output_returned`; written with the boundary of the visit."""
        found = self._find(task_id)
        if found is None or self.keep is None:
            return
        _, changed, removed = await self.files.change() or (None, (), ())
        kept = KeptOutput(place=place, value=output, changed=changed, removed=removed)
        found[1].result = self.keep(found[1].node, task_id, kept)

    async def checkpoint_coming(self) -> None:
        """See `StepObserver.checkpoint_coming`."""
        await self.files.save()

    def checkpoint_saved(self, saved: SavedCheckpoint) -> None:
        """See `StepObserver.checkpoint_saved`."""
        front = self._front(saved.namespace)
        boundaries, exits = self._ended_visits(front, saved.checkpoint_id)
        self._record(saved.namespace, saved.checkpoint_id, boundaries, exits, saved)
        front.head, front.step = saved.checkpoint_id, saved.step
        kept = [visit.kept for visit in front.visits.values() if visit.kept is not None]
        front.visits.clear()
        if kept:
            self.flush()  # others may be waiting for it
        for value in kept:
            value.settled()
        if not saved.namespace:
            # Subgraphs without a memory of their own end with the super-step of their task.
            self._fronts = {ns: kept for ns, kept in self._fronts.items() if ":" not in ns}

    def answered(self, given: Mapping[str, int]) -> None:
        """See `StepObserver.answered`: noted before the answers are given."""
        self.answers = given
        self.flush()
        with self.open_uow(write=True) as uow:
            uow.executions.set_answers(self.execution.execution_id, given)
            uow.commit()

    def store_opened(self, changed: Callable[[], bytes | None]) -> None:
        """See `StepObserver.store_opened`."""
        self.files.store_changed = changed

    def begin_at(self, lineage: Lineage, inherited: int) -> None:
        """Notes where a fork begins, and what of its subgraphs came with it; written with what
        follows. `inherited` is the number of answers its parent had used there."""
        self.answers = {q: n for q, n in self.execution.answers.items() if n < inherited}
        for namespace, head in self.heads.standing.items():
            self._record(namespace, head, [], [], claimed=False)
        begin = SavedCheckpoint(
            checkpoint_id=lineage.checkpoint_id, parent_id=None, step=self.execution.step
        )
        self._record("", lineage.checkpoint_id, [], [], begin, claimed=False)
        for namespace, head in self.heads.under_way.items():
            self._record(namespace, head, [], [], claimed=False)

    def flush(self) -> None:
        """Writes what is not in the ledger yet, in one transaction."""
        if self._unwritten or self.unsaved_execution:
            with self.open_uow(write=True) as uow:
                written = self._write(uow)
                uow.commit()
            self._written(written)

    def show(self) -> None:
        """The same for onlookers: a ledger that is busy now will have it with the next record."""
        with suppress(InfrastructureError):
            self.flush()

    def write_end(self, uow: UnitOfWork) -> None:
        """Writes what is left, failed visits included, within the caller's transaction."""
        self._written(self._write(uow))
        self._written(self._unwritten_spent)
        failed = [
            self._boundary(task_id, front, visit, None)
            for task_id, front, visit in self._open_visits()
            if visit.error is not None
        ]
        if failed:
            uow.node_boundaries.save_many(failed)
            tell_visits(uow, failed, self.execution, self.clock.now())

    def _front(self, namespace: str) -> Front:
        return self._fronts.setdefault(namespace, Front(None, -2))

    def _visit(self, task_id: str, node: str, namespace: str) -> Visit:
        visits = self._front(namespace).visits
        if task_id not in visits:
            began = self.clock.now(), self.clock.elapsed()
            visits[task_id] = Visit(node, namespace, *began, mocked=node in self.mocked)
        return visits[task_id]

    def _find(self, task_id: str) -> tuple[Front, Visit] | None:
        for known, front, visit in self._open_visits():
            if known == task_id:
                return front, visit
        return None

    def _open_visits(self) -> list[tuple[str, Front, Visit]]:
        return [
            (task_id, front, visit)
            for front in self._fronts.values()
            for task_id, visit in front.visits.items()
        ]

    def _end(self, visit: Visit) -> None:
        visit.finished = True
        visit.duration = self.clock.elapsed() - visit.started
        if visit.cached:
            self._unwritten_spent.cache_hits += 1

    def _write(self, uow: UnitOfWork) -> Spent:
        """Adds the rows; answers what they count. Nothing is forgotten before the caller's
        transaction is committed."""
        if self.unsaved_execution:
            uow.executions.save(replace(self.execution, answers=self.answers))
        if self.begun is not None:
            uow.record(self.begun, ACTOR)
        # A body that is still running is not saved work: it counts when its visit ends.
        running = sum(v.calls for _, _, v in self._open_visits() if not v.finished)
        bodies = self._unwritten_spent.bodies - running
        hits = self._unwritten_spent.cache_hits
        for record in self._unwritten:
            record.write(uow, self.execution)
        if self._unwritten and self.head is not None:
            known, commit_id = self.execution.execution_id, self.files.commit_id
            uow.executions.advance(known, self.head, self.step, commit_id, bodies, hits)
            return Spent(bodies, hits)
        return Spent()

    def _written(self, written: Spent) -> None:
        self.unsaved_execution, self.begun = False, None
        self._unwritten.clear()
        bodies, hits = written.bodies, written.cache_hits
        self._unwritten_spent.bodies -= bodies
        self._unwritten_spent.cache_hits -= hits
        self.spent.bodies += bodies
        self.spent.cache_hits += hits

    def _ended_visits(
        self, front: Front, checkpoint_id: CheckpointId
    ) -> tuple[list[NodeBoundary], list[str]]:
        """Boundaries of visits that this checkpoint ends: new ones, and the tasks of saved ones."""
        visits = front.visits.items()
        fresh = [
            self._boundary(task_id, front, visit, checkpoint_id)
            for task_id, visit in visits
            if visit.finished and not visit.saved and not visit.replayed
        ]
        return fresh, [task for task, visit in visits if visit.saved or visit.replayed]

    def _boundary(
        self, task_id: str, front: Front, visit: Visit, exit_checkpoint: CheckpointId | None
    ) -> NodeBoundary:
        if visit.mocked:
            code = MOCK, self.mocked[visit.node]
        else:
            code = self.implementation_of(visit.node, self.execution.choices)
        return boundary_of(self.execution, code, task_id, front, visit, exit_checkpoint)

    def _record(
        self,
        namespace: str,
        checkpoint_id: CheckpointId,
        boundaries: list[NodeBoundary],
        exits: list[str],
        saved: SavedCheckpoint | None = None,
        *,
        claimed: bool = True,
    ) -> None:
        """Notes what there is to write of now: of a checkpoint (`saved`), or of pending writes.

        Records of subgraphs are pending ones for the top graph.
        """
        now = self.clock.now()
        events: list[OutboxEvent] = []
        commit = self.files.take()
        if commit is not None:
            kind = OutboxEventType.FILE_COMMIT_VERIFY
            events.append(claim(kind, self.execution.execution_id, commit.commit_id, now))
        front = self._front(namespace)
        kept = [(v, v.kept) for v in front.visits.values() if saved is not None and v.kept]
        results = tuple(result_of(v, value, self.execution, commit, now) for v, value in kept)
        link = CheckpointFileLink(
            execution_id=self.execution.execution_id,
            checkpoint_id=checkpoint_id,
            commit_id=self.files.commit_id,
            pending=saved is None or bool(namespace),
            sequence=self.sequence,
            step=front.step if saved is None else saved.step,
            created_at=now,
            parent_checkpoint_id=None if saved is None else saved.parent_id,
            nodes=tuple(v.node for v in front.visits.values() if v.finished or v.replayed),
            namespace=namespace,
            answers=len(self.answers),
            exact=saved is None or saved.exact,
            store_id=self.files.store_id,
        )
        self.sequence += 1
        if claimed and not namespace:
            events += claims_of(link)
        recorded = [r for b in boundaries if (r := front.visits[b.task_id].result) is not None]
        self._unwritten.append(
            Record(
                boundaries=boundaries,
                exits=exits,
                link=link,
                commit=commit,
                events=events,
                results=(*results, *recorded),
            )
        )
