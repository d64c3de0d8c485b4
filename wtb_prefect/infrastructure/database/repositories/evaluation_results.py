"""Scores of executions."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select

from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.rows import result_of, result_row
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import fixed, insert_row, value

_r = tables.evaluation_results.c

_RESULTS = (
    select(tables.evaluation_results)
    .where(_r.execution_id.in_(bindparam("ids", expanding=True)))
    .order_by(_r.evaluator, _r.metric)
)
_CLEAR = fixed(delete(tables.evaluation_results).where(_r.execution_id == value()))
_ADD = insert_row(tables.evaluation_results)


class SqlEvaluationResults:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list_many(self, execution_ids: Sequence[str]) -> dict[str, list[EvaluationResult]]:
        found: dict[str, list[EvaluationResult]] = {}
        for row in self._session.fetch_by_ids(_RESULTS, execution_ids):
            result = result_of(row)
            found.setdefault(result.execution_id, []).append(result)
        return found

    def replace(self, execution_id: str, results: Sequence[EvaluationResult]) -> None:
        self._session.write(_CLEAR, (execution_id,))
        self._session.write_many(_ADD, [result_row(result) for result in results])
