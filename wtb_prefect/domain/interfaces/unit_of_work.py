"""The ledger's transaction: leaving it without `commit()` rolls everything back."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from wtb_prefect.domain.events import DomainEvent
from wtb_prefect.domain.interfaces.outbox_repository import AuditLogRepository, OutboxRepository
from wtb_prefect.domain.interfaces.repositories import (
    BatchTestRepository,
    CaseRepository,
    CellRepository,
    CheckpointFileRepository,
    EvaluationResultRepository,
    ExecutionControlRepository,
    ExecutionRepository,
    FileCommitRepository,
    NodeBoundaryRepository,
    NodeResultRepository,
    VariantRepository,
    WorkflowRepository,
)


class UnitOfWork(Protocol):
    """One ledger transaction over all repositories.

    Used as `with open_unit_of_work() as uow: ...; uow.commit()`. Leaving the block without
    `commit()`, or with an exception, changes nothing. An instance is used once, by one thread.
    Storage faults are raised as `LedgerError`.
    """

    @property
    def workflows(self) -> WorkflowRepository: ...
    @property
    def variants(self) -> VariantRepository: ...
    @property
    def batch_tests(self) -> BatchTestRepository: ...
    @property
    def cases(self) -> CaseRepository: ...
    @property
    def cells(self) -> CellRepository: ...
    @property
    def executions(self) -> ExecutionRepository: ...
    @property
    def execution_controls(self) -> ExecutionControlRepository: ...
    @property
    def node_boundaries(self) -> NodeBoundaryRepository: ...
    @property
    def file_commits(self) -> FileCommitRepository: ...
    @property
    def checkpoint_files(self) -> CheckpointFileRepository: ...
    @property
    def node_results(self) -> NodeResultRepository: ...
    @property
    def evaluation_results(self) -> EvaluationResultRepository: ...
    @property
    def outbox(self) -> OutboxRepository: ...
    @property
    def audit_log(self) -> AuditLogRepository: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def record(self, event: DomainEvent, actor: str) -> None:
        """Says what happened: told to listeners once this block is committed, and else to nobody.

        Unless it is `of_steps` it is a line of the audit log, too, written in this block.
        `actor` is the use case that did it.
        """
        ...

    def commit(self) -> None:
        """Makes everything written in this block durable, at once; the block is over then.

        What was recorded is told before this returns.
        """
        ...


class OpenUnitOfWork(Protocol):
    """Makes a fresh unit of work.

    `write` says at the door whether the block will write: a writer takes its place in the queue
    when the block is entered, so that two writers wait for each other and never fail half way.
    """

    def __call__(self, *, write: bool = False) -> UnitOfWork: ...
