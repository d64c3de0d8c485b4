"""The ledger in memory: same rows, same rules, no file. For tests.

Committed tables are never changed: a writer copies the tables it touches and publishes them at
commit, so a reader keeps seeing what was committed when it began.
"""

from __future__ import annotations

import builtins
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from wtb_prefect.domain.batch_test import BatchCell, BatchStatus, BatchTest, Owner, StoredCase
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.events import DomainEvent, Tell, audit_entry, tell_nobody
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.workflow import NodeVariant, TestWorkflow
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database import rows, tables
from wtb_prefect.infrastructure.database.codecs import (
    json_list,
    json_object,
    prose,
    time_text,
)
from wtb_prefect.infrastructure.database.memory_controls import MemoryExecutionControls
from wtb_prefect.infrastructure.database.memory_files import (
    MemoryCheckpointFiles,
    MemoryFileCommits,
    MemoryNodeResults,
)
from wtb_prefect.infrastructure.database.memory_outbox import MemoryAuditLog, MemoryOutbox
from wtb_prefect.infrastructure.database.memory_tables import (
    MemoryRepository,
    MemoryTables,
    Snapshot,
)

_T = TypeVar("_T")

BUSY_SECONDS = 30.0


class MemoryLedger:
    """What is committed. Calling it opens a unit of work, as the `OpenUnitOfWork` port says."""

    def __init__(self, tell: Tell = tell_nobody) -> None:
        self.snapshot: Snapshot = {}
        self.writer = threading.Lock()
        self.tell = tell

    def __call__(self, *, write: bool = False) -> InMemoryUnitOfWork:
        return InMemoryUnitOfWork(self, write=write)


class InMemoryUnitOfWork:
    """One transaction on a `MemoryLedger`."""

    def __init__(self, ledger: MemoryLedger, *, write: bool = False) -> None:
        self._ledger = ledger
        self._write = write
        self._is_writing = False
        self._recorded: list[DomainEvent] = []
        self._tables = session = MemoryTables(writable=write)
        self.workflows = MemoryWorkflows(session)
        self.variants = MemoryVariants(session)
        self.batch_tests = MemoryBatchTests(session)
        self.cases = MemoryCases(session)
        self.cells = MemoryCells(session)
        self.executions = MemoryExecutions(session)
        self.execution_controls = MemoryExecutionControls(session)
        self.node_boundaries = MemoryNodeBoundaries(session)
        self.file_commits = MemoryFileCommits(session)
        self.checkpoint_files = MemoryCheckpointFiles(session)
        self.node_results = MemoryNodeResults(session)
        self.evaluation_results = MemoryEvaluationResults(session)
        self.outbox = MemoryOutbox(session)
        self.audit_log = MemoryAuditLog(session)

    def __enter__(self) -> Self:
        if self._write and not self._ledger.writer.acquire(timeout=BUSY_SECONDS):
            raise LedgerError(f"the ledger was busy for {BUSY_SECONDS:.0f} s")
        self._is_writing = self._write
        self._tables.open(self._ledger.snapshot)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def record(self, event: DomainEvent, actor: str) -> None:
        """See `UnitOfWork.record`."""
        if not event.of_steps:
            self.audit_log.append(audit_entry(event, actor))
        self._recorded.append(event)

    def commit(self) -> None:
        """Publishes everything written in this block, at once; the block is over then."""
        snapshot = self._tables.checked()
        if self._write:
            self._ledger.snapshot = snapshot
        self._close()
        recorded, self._recorded = self._recorded, []
        for event in recorded:
            self._ledger.tell(event)

    def _close(self) -> None:
        self._tables.close()
        if self._is_writing:
            self._is_writing = False
            self._ledger.writer.release()


class MemoryWorkflows(MemoryRepository):
    def get(self, workflow_id: str) -> TestWorkflow | None:
        return self._get(tables.workflows, rows.workflow_of, workflow_id)

    def list(self) -> builtins.list[TestWorkflow]:
        found = self._session.where(tables.workflows, order=("name", "workflow_id"))
        return [rows.workflow_of(row) for row in found]

    def save(self, workflow: TestWorkflow) -> None:
        self._session.put(tables.workflows, rows.workflow_row(workflow))


class MemoryVariants(MemoryRepository):
    def list(self, workflow_id: str) -> builtins.list[NodeVariant]:
        order = ("node", "name", "fingerprint")
        found = self._session.where(tables.variants, order=order, workflow_id=workflow_id)
        return [rows.variant_of(row) for row in found]

    def save_many(self, variants: Iterable[NodeVariant]) -> None:
        for variant in variants:
            self._session.put(tables.variants, rows.variant_row(variant))


class MemoryBatchTests(MemoryRepository):
    def get(self, batch_id: str) -> BatchTest | None:
        return self._get(tables.batch_tests, rows.batch_of, batch_id)

    def list(self, workflow_id: str | None = None) -> builtins.list[BatchTest]:
        wanted = {} if workflow_id is None else {"workflow_id": workflow_id}
        order = ("created_at", "batch_id")
        found = self._session.where(tables.batch_tests, order=order, **wanted)
        return [rows.batch_of(row) for row in reversed(found)]

    def save(self, batch: BatchTest) -> None:
        self._session.put(tables.batch_tests, rows.batch_row(batch))

    def finish(
        self, batch_id: str, status: BatchStatus, node_executions: int, at: datetime
    ) -> None:
        batch = self.get(batch_id)
        if batch is None:
            raise LedgerError(f"no batch test {batch_id!r} to finish")
        self._session.update(
            tables.batch_tests,
            (batch_id,),
            status=status.value,
            node_executions=batch.node_executions + node_executions,
            finished_at=time_text(at),
            owner_host=None,
            owner_pid=None,
            owner_started=None,
        )

    def own(self, batch_id: str, owner: Owner, runner: str, at: datetime) -> None:
        owned = self._session.update(
            tables.batch_tests,
            (batch_id,),
            owner_host=owner.host,
            owner_pid=owner.pid,
            owner_started=owner.started,
            runner=runner,
            status=BatchStatus.RUNNING.value,
            started_at=time_text(at),
            finished_at=None,
        )
        if not owned:
            raise LedgerError(f"no batch test {batch_id!r} to own")

    def delete(self, batch_id: str) -> None:
        for table in (tables.cells, tables.cases, tables.batch_tests):
            self._session.remove(table, batch_id=batch_id)


class MemoryCases(MemoryRepository):
    def get(self, batch_id: str, case_id: str) -> StoredCase | None:
        return self._get(tables.cases, rows.case_of, batch_id, case_id)

    def list(self, batch_id: str) -> builtins.list[StoredCase]:
        order = ("position", "case_id")
        found = self._session.where(tables.cases, order=order, batch_id=batch_id)
        return [rows.case_of(row) for row in found]

    def save_many(self, cases: Iterable[StoredCase]) -> None:
        for case in cases:
            self._session.put(tables.cases, rows.case_row(case))


class MemoryCells(MemoryRepository):
    def get(self, cell_id: str) -> BatchCell | None:
        return self._get(tables.cells, rows.cell_of, cell_id)

    def list(self, batch_id: str) -> builtins.list[BatchCell]:
        order = ("case_id", "repeat", "combination")
        found = self._session.where(tables.cells, order=order, batch_id=batch_id)
        return [rows.cell_of(row) for row in found]

    def count(self, batch_id: str) -> Mapping[ExecutionStatus, int]:
        return Counter(cell.status for cell in self.list(batch_id))

    def count_by_combination(self, batch_id: str) -> Mapping[str, Mapping[ExecutionStatus, int]]:
        counts: dict[str, Counter[ExecutionStatus]] = {}
        for cell in self.list(batch_id):
            counts.setdefault(cell.combination, Counter())[cell.status] += 1
        return counts

    def list_by_executions(self, execution_ids: Sequence[str]) -> builtins.list[BatchCell]:
        found = map(rows.cell_of, self._session.where(tables.cells, order=("cell_id",)))
        return [cell for cell in found if cell.execution_id in set(execution_ids)]

    def find_completed(self, keys: Sequence[str]) -> dict[str, BatchCell]:
        completed = ExecutionStatus.COMPLETED.value
        found = self._session.where(tables.cells, order=("cell_id",), status=completed)
        cells = {cell.key: cell for cell in map(rows.cell_of, reversed(found))}
        return {key: cells[key] for key in keys if key in cells}

    def save_many(self, cells: Iterable[BatchCell]) -> None:
        for cell in cells:
            self._session.put(tables.cells, rows.cell_row(cell))

    def resolve(
        self,
        cell_ids: Sequence[str],
        execution_id: str | None,
        status: ExecutionStatus,
        unshared_reason: str | None,
    ) -> None:
        outcome: dict[str, Any] = {
            "execution_id": execution_id,
            "status": status.value,
            "unshared_reason": prose(unshared_reason),
        }
        for cell_id in cell_ids:
            self._session.update(tables.cells, (cell_id,), **outcome)

    def mark_stale(self, changed: Mapping[str, Sequence[str]]) -> None:
        for cell_id, names in changed.items():
            self._session.update(tables.cells, (cell_id,), stale=json_list(names))


class MemoryExecutions(MemoryRepository):
    def get(self, execution_id: str) -> Execution | None:
        return self._get(tables.executions, rows.execution_of, execution_id)

    def get_many(self, execution_ids: Sequence[str]) -> dict[str, Execution]:
        found = {execution_id: self.get(execution_id) for execution_id in execution_ids}
        return {key: execution for key, execution in found.items() if execution is not None}

    def list(
        self, *, batch_id: str | None = None, workflow_id: str | None = None
    ) -> builtins.list[Execution]:
        asked = {"batch_id": batch_id, "workflow_id": workflow_id}
        wanted = {name: value for name, value in asked.items() if value is not None}
        order = ("created_at", "execution_id")
        found = self._session.where(tables.executions, order=order, **wanted)
        return [rows.execution_of(row) for row in found]

    def list_running(self, batch_id: str) -> builtins.list[Execution]:
        found = self.list(batch_id=batch_id)
        return [one for one in found if one.status is ExecutionStatus.RUNNING]

    def list_by_root(self, root_key: str) -> builtins.list[Execution]:
        order = ("created_at", "execution_id")
        found = self._session.where(tables.executions, order=order, root_key=root_key)
        return [rows.execution_of(row) for row in found]

    def any_before(self, workflow_id: str, at: datetime) -> bool:
        found = self.list(workflow_id=workflow_id)
        return any(e.root_key is not None and e.created_at < at for e in found)

    def list_children(self, execution_ids: Sequence[str]) -> builtins.list[Execution]:
        wanted = set(execution_ids)
        return [e for e in self.list() if e.lineage and e.lineage.parent_id in wanted]

    def total_bodies(self, batch_id: str) -> int:
        return sum(execution.node_executions for execution in self.list(batch_id=batch_id))

    def count(self, batch_id: str) -> Mapping[ExecutionStatus, int]:
        return Counter(execution.status for execution in self.list(batch_id=batch_id))

    def lineage(self, execution_id: str) -> builtins.list[Execution]:
        line: list[Execution] = []
        current = self.get(execution_id)
        while current is not None:
            line.append(current)
            current = self.get(current.lineage.parent_id) if current.lineage else None
        return line[::-1]

    def add(self, execution: Execution) -> None:
        if not self._session.put_new(tables.executions, rows.execution_row(execution)):
            raise LedgerError(f"the execution {execution.execution_id!r} exists already")

    def save(self, execution: Execution) -> None:
        self._session.put(tables.executions, rows.execution_row(execution))

    def advance(
        self,
        execution_id: str,
        head: CheckpointId,
        step: int,
        commit_id: str | None,
        node_executions: int,
        cache_hits: int = 0,
    ) -> None:
        execution = self.get(execution_id)
        if execution is None:
            raise LedgerError(f"no execution {execution_id!r} to advance")
        self._session.update(
            tables.executions,
            (execution_id,),
            head=head,
            step=step,
            commit_id=commit_id,
            node_executions=execution.node_executions + node_executions,
            cache_hits=execution.cache_hits + cache_hits,
        )

    def set_answers(self, execution_id: str, answers: Mapping[str, int]) -> None:
        noted = json_object(answers)
        if not self._session.update(tables.executions, (execution_id,), answers=noted):
            raise LedgerError(f"no execution {execution_id!r} to note answers of")

    def set_status(self, execution_id: str, status: ExecutionStatus) -> None:
        if not self._session.update(tables.executions, (execution_id,), status=status.value):
            raise LedgerError(f"no execution {execution_id!r} to set {status.value}")

    def leave(self, execution_id: str, status: ExecutionStatus) -> bool:
        found = self.get(execution_id)
        if found is None or found.status is not ExecutionStatus.RUNNING:
            return False
        self.set_status(execution_id, status)
        return True

    def move_children(
        self, parent_id: str, checkpoint_ids: Sequence[str], new_parent_id: str
    ) -> None:
        for child in self.list_children([parent_id]):
            if child.lineage is not None and child.lineage.checkpoint_id in checkpoint_ids:
                key = (child.execution_id,)
                self._session.update(tables.executions, key, parent_id=new_parent_id)

    def delete(self, execution_id: str) -> None:
        self._session.remove(tables.executions, execution_id=execution_id)
        for table in (
            tables.execution_controls,
            tables.node_boundaries,
            tables.checkpoint_files,
            tables.evaluation_results,
        ):
            self._session.remove(table, execution_id=execution_id)


class MemoryNodeBoundaries(MemoryRepository):
    def list(self, execution_id: str) -> builtins.list[NodeBoundary]:
        found = self._session.where(tables.node_boundaries, execution_id=execution_id)
        return [rows.boundary_of(row) for row in found]

    def list_many(self, execution_ids: Sequence[str]) -> dict[str, builtins.list[NodeBoundary]]:
        return self._by_execution(tables.node_boundaries, execution_ids, rows.boundary_of)

    def save_many(self, boundaries: Sequence[NodeBoundary]) -> None:
        for boundary in boundaries:
            self._session.put(tables.node_boundaries, rows.boundary_row(boundary))

    def set_exit(
        self, execution_id: str, task_ids: Sequence[str], exit_checkpoint_id: CheckpointId
    ) -> None:
        for task_id in task_ids:
            key = (execution_id, task_id)
            self._session.update(tables.node_boundaries, key, exit_checkpoint_id=exit_checkpoint_id)

    def move(self, execution_id: str, task_ids: Sequence[str], to_execution_id: str) -> None:
        for boundary in self.list(execution_id):
            if boundary.task_id in task_ids:
                where = {"execution_id": execution_id, "task_id": boundary.task_id}
                self._session.remove(tables.node_boundaries, **where)
                self.save_many([replace(boundary, execution_id=to_execution_id)])


class MemoryEvaluationResults(MemoryRepository):
    def list_many(self, execution_ids: Sequence[str]) -> dict[str, list[EvaluationResult]]:
        order = ("evaluator", "metric")
        return self._by_execution(tables.evaluation_results, execution_ids, rows.result_of, *order)

    def replace(self, execution_id: str, results: Sequence[EvaluationResult]) -> None:
        self._session.remove(tables.evaluation_results, execution_id=execution_id)
        for result in results:
            if not self._session.put_new(tables.evaluation_results, rows.result_row(result)):
                raise LedgerError(f"two results {result.metric!r} of execution {execution_id!r}")
