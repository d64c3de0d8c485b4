"""Batch tests with their cases and cells."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import bindparam, delete, func, null, select, update

from wtb_prefect.domain.batch_test import BatchCell, BatchStatus, BatchTest, Owner, StoredCase
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.codecs import json_list, prose, time_text
from wtb_prefect.infrastructure.database.rows import (
    batch_of,
    batch_row,
    case_of,
    case_row,
    cell_of,
    cell_row,
)
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import fixed, set_columns, upsert, value

_b = tables.batch_tests.c
_case = tables.cases.c
_cell = tables.cells.c

_BATCH = select(tables.batch_tests).where(_b.batch_id == bindparam("batch_id"))
_BATCHES = select(tables.batch_tests).order_by(_b.created_at.desc(), _b.batch_id.desc())
_BATCHES_OF = _BATCHES.where(_b.workflow_id == bindparam("workflow_id"))
_SAVE_BATCH = upsert(tables.batch_tests, "batch_id")
_FINISH = fixed(
    update(tables.batch_tests)
    .ordered_values(
        ("status", value()),
        ("node_executions", _b.node_executions + value()),
        ("finished_at", value()),
        ("owner_host", null()),
        ("owner_pid", null()),
        ("owner_started", null()),
    )
    .where(_b.batch_id == value())
)
_OWN = fixed(
    set_columns(
        update(tables.batch_tests),
        *("owner_host", "owner_pid", "owner_started", "runner", "status"),
        *("started_at", "finished_at"),
    ).where(_b.batch_id == value())
)
_DELETE_BATCH = tuple(
    fixed(delete(table).where(table.c.batch_id == value()))
    for table in (tables.cells, tables.cases, tables.batch_tests)
)

_CASES = (
    select(tables.cases)
    .where(_case.batch_id == bindparam("batch_id"))
    .order_by(_case.position, _case.case_id)
)
_CASE = _CASES.where(_case.case_id == bindparam("case_id"))
_SAVE_CASE = upsert(tables.cases, "batch_id", "case_id")

_CELL = select(tables.cells).where(_cell.cell_id == bindparam("cell_id"))
_CELLS = (
    select(tables.cells)
    .where(_cell.batch_id == bindparam("batch_id"))
    .order_by(_cell.case_id, _cell.repeat, _cell.combination)
)
_COUNT = (
    select(_cell.status, func.count())
    .where(_cell.batch_id == bindparam("batch_id"))
    .group_by(_cell.status)
)
_COUNT_BY_COMBINATION = (
    select(_cell.combination, _cell.status, func.count())
    .where(_cell.batch_id == bindparam("batch_id"))
    .group_by(_cell.combination, _cell.status)
    .order_by(_cell.combination)
)
_COMPLETED = (
    select(tables.cells)
    .where(
        _cell.key.in_(bindparam("ids", expanding=True)),
        _cell.status == ExecutionStatus.COMPLETED.value,
    )
    .order_by(_cell.cell_id)
)
_ANSWERED = (
    select(tables.cells)
    .where(_cell.execution_id.in_(bindparam("ids", expanding=True)))
    .order_by(_cell.cell_id)
)
_SAVE_CELL = upsert(tables.cells, "cell_id")
_RESOLVE = fixed(
    set_columns(update(tables.cells), "execution_id", "status", "unshared_reason").where(
        _cell.cell_id == value()
    )
)


_MARK_STALE = fixed(set_columns(update(tables.cells), "stale").where(_cell.cell_id == value()))


class SqlBatchTests:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, batch_id: str) -> BatchTest | None:
        row = self._session.fetch_one(_BATCH, batch_id=batch_id)
        return None if row is None else batch_of(row)

    def list(self, workflow_id: str | None = None) -> builtins.list[BatchTest]:
        if workflow_id is None:
            rows = self._session.fetch(_BATCHES)
        else:
            rows = self._session.fetch(_BATCHES_OF, {"workflow_id": workflow_id})
        return [batch_of(row) for row in rows]

    def save(self, batch: BatchTest) -> None:
        self._session.write(_SAVE_BATCH, batch_row(batch))

    def finish(
        self, batch_id: str, status: BatchStatus, node_executions: int, at: datetime
    ) -> None:
        row = (status.value, node_executions, time_text(at), batch_id)
        if not self._session.write(_FINISH, row):
            raise LedgerError(f"no batch test {batch_id!r} to finish")

    def own(self, batch_id: str, owner: Owner, runner: str, at: datetime) -> None:
        running = BatchStatus.RUNNING.value
        row = (owner.host, owner.pid, owner.started, runner, running, time_text(at), None, batch_id)
        if not self._session.write(_OWN, row):
            raise LedgerError(f"no batch test {batch_id!r} to own")

    def delete(self, batch_id: str) -> None:
        for statement in _DELETE_BATCH:
            self._session.write(statement, (batch_id,))


class SqlCases:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, batch_id: str, case_id: str) -> StoredCase | None:
        row = self._session.fetch_one(_CASE, batch_id=batch_id, case_id=case_id)
        return None if row is None else case_of(row)

    def list(self, batch_id: str) -> builtins.list[StoredCase]:
        return [case_of(row) for row in self._session.fetch(_CASES, {"batch_id": batch_id})]

    def save_many(self, cases: Iterable[StoredCase]) -> None:
        self._session.write_many(_SAVE_CASE, [case_row(case) for case in cases])


class SqlCells:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, cell_id: str) -> BatchCell | None:
        row = self._session.fetch_one(_CELL, cell_id=cell_id)
        return None if row is None else cell_of(row)

    def list(self, batch_id: str) -> builtins.list[BatchCell]:
        return [cell_of(row) for row in self._session.fetch(_CELLS, {"batch_id": batch_id})]

    def count(self, batch_id: str) -> Mapping[ExecutionStatus, int]:
        rows = self._session.fetch(_COUNT, {"batch_id": batch_id})
        return {ExecutionStatus(row[0]): row[1] for row in rows}

    def count_by_combination(self, batch_id: str) -> Mapping[str, Mapping[ExecutionStatus, int]]:
        counts: dict[str, dict[ExecutionStatus, int]] = {}
        rows = self._session.fetch(_COUNT_BY_COMBINATION, {"batch_id": batch_id})
        for name, status, count in rows:
            counts.setdefault(name, {})[ExecutionStatus(status)] = count
        return counts

    def list_by_executions(self, execution_ids: Sequence[str]) -> builtins.list[BatchCell]:
        return [cell_of(row) for row in self._session.fetch_by_ids(_ANSWERED, execution_ids)]

    def find_completed(self, keys: Sequence[str]) -> dict[str, BatchCell]:
        found: dict[str, BatchCell] = {}
        for row in self._session.fetch_by_ids(_COMPLETED, keys):
            cell = cell_of(row)
            found.setdefault(cell.key, cell)
        return found

    def save_many(self, cells: Iterable[BatchCell]) -> None:
        self._session.write_many(_SAVE_CELL, [cell_row(cell) for cell in cells])

    def resolve(
        self,
        cell_ids: Sequence[str],
        execution_id: str | None,
        status: ExecutionStatus,
        unshared_reason: str | None,
    ) -> None:
        outcome = (execution_id, status.value, prose(unshared_reason))
        self._session.write_many(_RESOLVE, [(*outcome, cell_id) for cell_id in cell_ids])

    def mark_stale(self, changed: Mapping[str, Sequence[str]]) -> None:
        rows = [(json_list(names), cell_id) for cell_id, names in changed.items()]
        self._session.write_many(_MARK_STALE, rows)
