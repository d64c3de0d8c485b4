"""The ledger's transaction on a database."""

from __future__ import annotations

from functools import cached_property
from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from wtb_prefect.domain.events import DomainEvent, Tell, audit_entry, tell_nobody
from wtb_prefect.infrastructure.database.repositories.batch_tests import (
    SqlBatchTests,
    SqlCases,
    SqlCells,
)
from wtb_prefect.infrastructure.database.repositories.evaluation_results import (
    SqlEvaluationResults,
)
from wtb_prefect.infrastructure.database.repositories.execution_controls import (
    SqlExecutionControls,
)
from wtb_prefect.infrastructure.database.repositories.executions import (
    SqlExecutions,
    SqlNodeBoundaries,
)
from wtb_prefect.infrastructure.database.repositories.files import (
    SqlCheckpointFiles,
    SqlFileCommits,
    SqlNodeResults,
)
from wtb_prefect.infrastructure.database.repositories.outbox import SqlAuditLog, SqlOutbox
from wtb_prefect.infrastructure.database.repositories.workflows import SqlVariants, SqlWorkflows
from wtb_prefect.infrastructure.database.session import Session


class SqlAlchemyUnitOfWork:
    """One transaction over all repositories; leaving it without `commit()` rolls back.

    Repositories are made when asked for: a super-step uses five of the fourteen.
    """

    def __init__(self, engine: Engine, write: bool = False, tell: Tell = tell_nobody) -> None:
        self._session = Session(engine, write=write)
        self._tell = tell
        self._recorded: list[DomainEvent] = []

    @cached_property
    def workflows(self) -> SqlWorkflows:
        return SqlWorkflows(self._session)

    @cached_property
    def variants(self) -> SqlVariants:
        return SqlVariants(self._session)

    @cached_property
    def batch_tests(self) -> SqlBatchTests:
        return SqlBatchTests(self._session)

    @cached_property
    def cases(self) -> SqlCases:
        return SqlCases(self._session)

    @cached_property
    def cells(self) -> SqlCells:
        return SqlCells(self._session)

    @cached_property
    def executions(self) -> SqlExecutions:
        return SqlExecutions(self._session)

    @cached_property
    def execution_controls(self) -> SqlExecutionControls:
        return SqlExecutionControls(self._session)

    @cached_property
    def node_boundaries(self) -> SqlNodeBoundaries:
        return SqlNodeBoundaries(self._session)

    @cached_property
    def file_commits(self) -> SqlFileCommits:
        return SqlFileCommits(self._session)

    @cached_property
    def checkpoint_files(self) -> SqlCheckpointFiles:
        return SqlCheckpointFiles(self._session)

    @cached_property
    def node_results(self) -> SqlNodeResults:
        return SqlNodeResults(self._session)

    @cached_property
    def evaluation_results(self) -> SqlEvaluationResults:
        return SqlEvaluationResults(self._session)

    @cached_property
    def outbox(self) -> SqlOutbox:
        return SqlOutbox(self._session)

    @cached_property
    def audit_log(self) -> SqlAuditLog:
        return SqlAuditLog(self._session)

    def __enter__(self) -> Self:
        self._session.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

    def record(self, event: DomainEvent, actor: str) -> None:
        """See `UnitOfWork.record`."""
        if not event.of_steps:
            self.audit_log.append(audit_entry(event, actor))
        self._recorded.append(event)

    def commit(self) -> None:
        """Makes everything written in this block durable, at once; the block is over then."""
        self._session.commit()
        recorded, self._recorded = self._recorded, []
        for event in recorded:
            self._tell(event)
