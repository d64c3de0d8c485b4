"""The ledger's repositories, each with a read side and a write side.

All of them: `get` answers None for an unknown id; lists come in the order stated; times are UTC
with time zone; mappings come back equal to what was stored (JSON values). `save`/`save_many` insert
or replace by primary key; `add`/`add_many` insert. Moving one thing that does not exist (`advance`,
`set_status`, `own`, `finish`) raises `LedgerError`; setting several skips those that do not.
What a row names in another table (its workflow, batch, execution, parent or file commit) must exist
when the unit of work is committed, in whatever order the rows were written.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from wtb_prefect.domain.batch_test import BatchCell, BatchStatus, BatchTest, Owner, StoredCase
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.execution_control import ControlRequest, ExecutionControl
from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit, FileMemento
from wtb_prefect.domain.identifiers import BlobId, CheckpointId
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.node_result import NodeResult
from wtb_prefect.domain.workflow import NodeVariant, TestWorkflow


class WorkflowReader(Protocol):
    def get(self, workflow_id: str) -> TestWorkflow | None: ...
    def list(self) -> list[TestWorkflow]:
        """All workflows, by name."""
        ...


class WorkflowWriter(Protocol):
    def save(self, workflow: TestWorkflow) -> None: ...


class WorkflowRepository(WorkflowReader, WorkflowWriter, Protocol):
    """Projects' graphs, by `workflow_id`."""


class VariantReader(Protocol):
    def list(self, workflow_id: str) -> list[NodeVariant]:
        """All variants ever registered, by node, name and fingerprint."""
        ...


class VariantWriter(Protocol):
    def save_many(self, variants: Iterable[NodeVariant]) -> None: ...


class VariantRepository(VariantReader, VariantWriter, Protocol):
    """Implementations by `variant_id` (one per node, name and fingerprint)."""


class BatchTestReader(Protocol):
    def get(self, batch_id: str) -> BatchTest | None: ...
    def list(self, workflow_id: str | None = None) -> list[BatchTest]:
        """Newest first; of one workflow, or of all."""
        ...


class BatchTestWriter(Protocol):
    def save(self, batch: BatchTest) -> None: ...
    def finish(
        self, batch_id: str, status: BatchStatus, node_executions: int, at: datetime
    ) -> None:
        """Sets status and finish time, adds the node bodies run, and clears the owner."""
        ...

    def own(self, batch_id: str, owner: Owner, runner: str, at: datetime) -> None:
        """Sets owner, runner, status running and start time; clears the finish time."""
        ...

    def delete(self, batch_id: str) -> None:
        """Removes the batch with its cells and cases; its executions are removed one by one."""
        ...


class BatchTestRepository(BatchTestReader, BatchTestWriter, Protocol):
    """Batch tests by `batch_id`."""


class CaseReader(Protocol):
    def get(self, batch_id: str, case_id: str) -> StoredCase | None: ...
    def list(self, batch_id: str) -> list[StoredCase]:
        """By position."""
        ...


class CaseWriter(Protocol):
    def save_many(self, cases: Iterable[StoredCase]) -> None: ...


class CaseRepository(CaseReader, CaseWriter, Protocol):
    """Cases by (batch_id, case_id)."""


class CellReader(Protocol):
    def get(self, cell_id: str) -> BatchCell | None: ...
    def list(self, batch_id: str) -> list[BatchCell]:
        """By case id, repeat and combination."""
        ...

    def count(self, batch_id: str) -> Mapping[ExecutionStatus, int]:
        """Cells of a batch by status; a status without cells is absent."""
        ...

    def count_by_combination(self, batch_id: str) -> Mapping[str, Mapping[ExecutionStatus, int]]:
        """The same for each combination, by its name."""
        ...

    def list_by_executions(self, execution_ids: Sequence[str]) -> builtins.list[BatchCell]:
        """The cells of any batch that these executions answer (any number of ids)."""
        ...

    def find_completed(self, keys: Sequence[str]) -> dict[str, BatchCell]:
        """One completed cell of any batch per key that has one (any number of keys)."""
        ...


class CellWriter(Protocol):
    def save_many(self, cells: Iterable[BatchCell]) -> None: ...
    def resolve(
        self,
        cell_ids: Sequence[str],
        execution_id: str | None,
        status: ExecutionStatus,
        unshared_reason: str | None,
    ) -> None:
        """Sets execution, status and reason of the cells."""
        ...

    def mark_stale(self, changed: Mapping[str, Sequence[str]]) -> None:
        """Sets what has changed since their answers were made, by cell id (empty: nothing)."""
        ...


class CellRepository(CellReader, CellWriter, Protocol):
    """Cells by `cell_id`."""


class ExecutionReader(Protocol):
    def get(self, execution_id: str) -> Execution | None: ...
    def get_many(self, execution_ids: Sequence[str]) -> dict[str, Execution]:
        """Those that exist, by id (any number of ids)."""
        ...

    def list(
        self, *, batch_id: str | None = None, workflow_id: str | None = None
    ) -> list[Execution]:
        """By creation time, then id."""
        ...

    def list_running(self, batch_id: str) -> builtins.list[Execution]:
        """Those of a batch that say running, by creation time, then id."""
        ...

    def list_by_root(self, root_key: str) -> builtins.list[Execution]:
        """Those of one case and repeat with the same graph, case and files, by creation time."""
        ...

    def any_before(self, workflow_id: str, at: datetime) -> bool:
        """Whether a workflow has an execution with a root key that was created before a time."""
        ...

    def list_children(self, execution_ids: Sequence[str]) -> builtins.list[Execution]:
        """Those that were forked from these, whatever batch they are of (any number of ids)."""
        ...

    def total_bodies(self, batch_id: str) -> int:
        """Node bodies recorded by all executions of a batch."""
        ...

    def count(self, batch_id: str) -> Mapping[ExecutionStatus, int]:
        """Executions of a batch by status; a status without executions is absent."""
        ...

    def lineage(self, execution_id: str) -> builtins.list[Execution]:
        """The execution and its ancestors, root first; empty for an unknown id."""
        ...


class ExecutionWriter(Protocol):
    def add(self, execution: Execution) -> None:
        """Inserts; raises `LedgerError` if the id exists."""
        ...

    def save(self, execution: Execution) -> None: ...
    def advance(
        self,
        execution_id: str,
        head: CheckpointId,
        step: int,
        commit_id: str | None,
        node_executions: int,
        cache_hits: int = 0,
    ) -> None:
        """The hot path: moves the head, step and files, adds the node bodies run since and the
        visits that a cache answered."""
        ...

    def move_children(
        self, parent_id: str, checkpoint_ids: Sequence[str], new_parent_id: str
    ) -> None:
        """Those forked from these checkpoints of an execution are forked from another now."""
        ...

    def set_answers(self, execution_id: str, answers: Mapping[str, int]) -> None: ...
    def set_status(self, execution_id: str, status: ExecutionStatus) -> None: ...
    def leave(self, execution_id: str, status: ExecutionStatus) -> bool:
        """Sets the status of one that says running, and nothing else; False: it does not."""
        ...

    def delete(self, execution_id: str) -> None:
        """Removes the execution with its boundaries, file links and evaluation results."""
        ...


class ExecutionRepository(ExecutionReader, ExecutionWriter, Protocol):
    """Executions by `execution_id`."""


class ExecutionControlReader(Protocol):
    def get(self, execution_id: str) -> ExecutionControl | None: ...
    def asked(self, execution_id: str) -> ControlRequest | None:
        """What the execution is asked to do; None also if it is not a controlled one."""
        ...


class ExecutionControlWriter(Protocol):
    def save(self, control: ExecutionControl) -> None: ...
    def ask(self, execution_id: str, request: ControlRequest) -> None:
        """Sets what is asked; raises `LedgerError` if the execution is not a controlled one."""
        ...


class ExecutionControlRepository(ExecutionControlReader, ExecutionControlWriter, Protocol):
    """What single executions need to be controlled, by `execution_id`; gone with the execution."""


class NodeBoundaryReader(Protocol):
    def list(self, execution_id: str) -> list[NodeBoundary]:
        """In the order recorded."""
        ...

    def list_many(self, execution_ids: Sequence[str]) -> dict[str, builtins.list[NodeBoundary]]:
        """The same for several executions (any number); without boundaries: absent."""
        ...


class NodeBoundaryWriter(Protocol):
    def save_many(self, boundaries: Sequence[NodeBoundary]) -> None:
        """Inserts, or replaces those of the same (execution_id, task_id) keeping their order."""
        ...

    def set_exit(
        self, execution_id: str, task_ids: Sequence[str], exit_checkpoint_id: CheckpointId
    ) -> None: ...
    def move(self, execution_id: str, task_ids: Sequence[str], to_execution_id: str) -> None:
        """These visits belong to another execution from now on, in the order they had."""
        ...


class NodeBoundaryRepository(NodeBoundaryReader, NodeBoundaryWriter, Protocol):
    """Node boundaries by (execution_id, task_id)."""


class FileCommitReader(Protocol):
    def get(self, commit_id: str) -> FileCommit | None: ...
    def tree(self, commit_id: str) -> dict[str, FileMemento]:
        """All files as of a commit (its chain applied in order); raises LedgerError if a link of
        the chain is missing."""
        ...

    def blobs(self, batch_id: str) -> dict[BlobId, int]:
        """The contents that executions of a batch have or had in their files, with their sizes."""
        ...

    def parents(self) -> dict[str, tuple[str | None, datetime]]:
        """Of every commit its parent, and when it was made."""
        ...

    def in_use(self) -> set[str]:
        """Commits that executions or their checkpoints name, or that an execution made which is
        still there; not their ancestors."""
        ...

    def contents(self, commit_ids: Sequence[str]) -> set[BlobId]:
        """The blobs these commits name themselves (any number of ids)."""
        ...


class FileCommitWriter(Protocol):
    def add(self, commit: FileCommit) -> None:
        """Inserts; the same commit again is no change."""
        ...

    def delete_many(self, commit_ids: Sequence[str]) -> None:
        """Removes commits with what they changed (any number of ids)."""
        ...


class FileCommitRepository(FileCommitReader, FileCommitWriter, Protocol):
    """File commits by `commit_id`."""


class CheckpointFileReader(Protocol):
    def list(self, execution_id: str) -> list[CheckpointFileLink]:
        """By sequence."""
        ...

    def list_many(
        self, execution_ids: Sequence[str]
    ) -> dict[str, builtins.list[CheckpointFileLink]]:
        """The same for several executions (any number); without links: absent."""
        ...

    def store_ids(self) -> set[BlobId]:
        """The blobs with contents of LangGraph stores, of all links."""
        ...


class CheckpointFileWriter(Protocol):
    def save(self, link: CheckpointFileLink) -> None: ...
    def move(self, execution_id: str, sequences: Sequence[int], to_execution_id: str) -> None:
        """These records belong to another execution from now on, under the same numbers."""
        ...


class CheckpointFileRepository(CheckpointFileReader, CheckpointFileWriter, Protocol):
    """Checkpoint-file links by (execution_id, sequence): they also pin the checkpoint ids."""


class NodeResultReader(Protocol):
    def get(self, key: str) -> NodeResult | None: ...
    def blobs(self) -> set[BlobId]:
        """The contents that all kept results have in their files."""
        ...


class NodeResultWriter(Protocol):
    def add(self, result: NodeResult) -> None:
        """Inserts; one of the same key stays as it is."""
        ...

    def delete(self, workflow_id: str) -> int:
        """Forgets all results of a workflow; answers how many."""
        ...


class NodeResultRepository(NodeResultReader, NodeResultWriter, Protocol):
    """Results of nodes declared as cached, by `key`."""


class EvaluationResultReader(Protocol):
    def list_many(self, execution_ids: Sequence[str]) -> dict[str, list[EvaluationResult]]:
        """Results by execution (any number of ids), by evaluator and metric; none: absent."""
        ...


class EvaluationResultWriter(Protocol):
    def replace(self, execution_id: str, results: Sequence[EvaluationResult]) -> None:
        """These and only these are the results of the execution from now on."""
        ...


class EvaluationResultRepository(EvaluationResultReader, EvaluationResultWriter, Protocol):
    """Scores by (execution_id, evaluator, metric)."""
