"""The ledger's transaction on a database."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from wtb_prefect.infrastructure.database.repositories.batch_tests import (
    SqlBatchTests,
    SqlCases,
    SqlCells,
)
from wtb_prefect.infrastructure.database.repositories.evaluation_results import (
    SqlEvaluationResults,
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
    """One transaction over all repositories; leaving it without `commit()` rolls back."""

    def __init__(self, engine: Engine, write: bool = False) -> None:
        self._session = session = Session(engine, write=write)
        self.workflows = SqlWorkflows(session)
        self.variants = SqlVariants(session)
        self.batch_tests = SqlBatchTests(session)
        self.cases = SqlCases(session)
        self.cells = SqlCells(session)
        self.executions = SqlExecutions(session)
        self.node_boundaries = SqlNodeBoundaries(session)
        self.file_commits = SqlFileCommits(session)
        self.checkpoint_files = SqlCheckpointFiles(session)
        self.node_results = SqlNodeResults(session)
        self.evaluation_results = SqlEvaluationResults(session)
        self.outbox = SqlOutbox(session)
        self.audit_log = SqlAuditLog(session)

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

    def commit(self) -> None:
        """Makes everything written in this block durable, at once; the block is over then."""
        self._session.commit()
