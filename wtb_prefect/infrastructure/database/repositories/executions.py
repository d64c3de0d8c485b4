"""Executions and the node visits they are made of."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import bindparam, delete, func, select, update

from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.codecs import json_object, time_text
from wtb_prefect.infrastructure.database.rows import (
    boundary_of,
    boundary_row,
    execution_of,
    execution_row,
)
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import (
    fixed,
    insert_row,
    set_columns,
    upsert,
    value,
)
from wtb_prefect.infrastructure.database.tables import row_columns

_e = tables.executions.c
_n = tables.node_boundaries.c

_SELECT = select(tables.executions)
_EXECUTION = _SELECT.where(_e.execution_id == bindparam("execution_id"))
_EXECUTIONS = _SELECT.where(_e.execution_id.in_(bindparam("ids", expanding=True)))
_LIST = _SELECT.order_by(_e.created_at, _e.execution_id)
_BY_ROOT = _LIST.where(_e.root_key == bindparam("root_key"))
_CHILDREN = _LIST.where(_e.parent_id.in_(bindparam("ids", expanding=True)))
_IN_BATCH = _e.batch_id == bindparam("batch_id")
_RUNNING = _LIST.where(_IN_BATCH, _e.status == ExecutionStatus.RUNNING.value)
_IN_WORKFLOW = _e.workflow_id == bindparam("workflow_id")

_ANY_BEFORE = (
    select(_e.execution_id)
    .where(_IN_WORKFLOW, _e.created_at < bindparam("at"), _e.root_key.is_not(None))
    .limit(1)
)

_TOTAL_BODIES = select(func.coalesce(func.sum(_e.node_executions), 0)).where(_IN_BATCH)

_COUNT = select(_e.status, func.count()).where(_IN_BATCH).group_by(_e.status)

_ADD = insert_row(tables.executions)
_SAVE = upsert(tables.executions, "execution_id")
_ADVANCE = fixed(
    update(tables.executions)
    .ordered_values(
        ("head", value()),
        ("step", value()),
        ("commit_id", value()),
        ("node_executions", _e.node_executions + value()),
        ("cache_hits", _e.cache_hits + value()),
    )
    .where(_e.execution_id == value())
)
_SET_STATUS = fixed(
    set_columns(update(tables.executions), "status").where(_e.execution_id == value())
)
_LEAVE = fixed(
    set_columns(update(tables.executions), "status").where(
        _e.execution_id == value(), _e.status == value()
    )
)
_SET_ANSWERS = fixed(
    set_columns(update(tables.executions), "answers").where(_e.execution_id == value())
)
_MOVE_CHILDREN = fixed(
    set_columns(update(tables.executions), "parent_id").where(
        _e.parent_id == value(), _e.parent_checkpoint_id == value()
    )
)
_DELETE = fixed(delete(tables.executions).where(_e.execution_id == value()))

_BOUNDARIES = select(*row_columns(tables.node_boundaries)).order_by(_n.position)
_BOUNDARIES_OF = _BOUNDARIES.where(_n.execution_id == bindparam("execution_id"))
_BOUNDARIES_OF_MANY = _BOUNDARIES.where(_n.execution_id.in_(bindparam("ids", expanding=True)))
_SAVE_BOUNDARY = upsert(tables.node_boundaries, "execution_id", "task_id")
_MOVE = fixed(
    set_columns(update(tables.node_boundaries), "execution_id").where(
        _n.execution_id == value(), _n.task_id == value()
    )
)
_SET_EXIT = fixed(
    set_columns(update(tables.node_boundaries), "exit_checkpoint_id").where(
        _n.execution_id == value(), _n.task_id == value()
    )
)


class SqlExecutions:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, execution_id: str) -> Execution | None:
        row = self._session.fetch_one(_EXECUTION, execution_id=execution_id)
        return None if row is None else execution_of(row)

    def get_many(self, execution_ids: Sequence[str]) -> dict[str, Execution]:
        found = map(execution_of, self._session.fetch_by_ids(_EXECUTIONS, execution_ids))
        return {execution.execution_id: execution for execution in found}

    def list(
        self, *, batch_id: str | None = None, workflow_id: str | None = None
    ) -> builtins.list[Execution]:
        query, values = _LIST, {}
        if batch_id is not None:
            query, values["batch_id"] = query.where(_IN_BATCH), batch_id
        if workflow_id is not None:
            query, values["workflow_id"] = query.where(_IN_WORKFLOW), workflow_id
        return [execution_of(row) for row in self._session.fetch(query, values)]

    def list_running(self, batch_id: str) -> builtins.list[Execution]:
        return [execution_of(row) for row in self._session.fetch(_RUNNING, {"batch_id": batch_id})]

    def list_by_root(self, root_key: str) -> builtins.list[Execution]:
        return [execution_of(row) for row in self._session.fetch(_BY_ROOT, {"root_key": root_key})]

    def any_before(self, workflow_id: str, at: datetime) -> bool:
        asked = {"workflow_id": workflow_id, "at": time_text(at)}
        return bool(self._session.fetch(_ANY_BEFORE, asked))

    def list_children(self, execution_ids: Sequence[str]) -> builtins.list[Execution]:
        return [execution_of(row) for row in self._session.fetch_by_ids(_CHILDREN, execution_ids)]

    def total_bodies(self, batch_id: str) -> int:
        ((total,),) = self._session.fetch(_TOTAL_BODIES, {"batch_id": batch_id})
        return int(total)

    def count(self, batch_id: str) -> Mapping[ExecutionStatus, int]:
        rows = self._session.fetch(_COUNT, {"batch_id": batch_id})
        return {ExecutionStatus(status): count for status, count in rows}

    def lineage(self, execution_id: str) -> builtins.list[Execution]:
        line: list[Execution] = []
        current = self.get(execution_id)
        while current is not None:
            line.append(current)
            current = self.get(current.lineage.parent_id) if current.lineage else None
        return line[::-1]

    def add(self, execution: Execution) -> None:
        self._session.write(_ADD, execution_row(execution))

    def save(self, execution: Execution) -> None:
        self._session.write(_SAVE, execution_row(execution))

    def advance(
        self,
        execution_id: str,
        head: CheckpointId,
        step: int,
        commit_id: str | None,
        node_executions: int,
        cache_hits: int = 0,
    ) -> None:
        row = (head, step, commit_id, node_executions, cache_hits, execution_id)
        if not self._session.write(_ADVANCE, row):
            raise LedgerError(f"no execution {execution_id!r} to advance")

    def set_answers(self, execution_id: str, answers: Mapping[str, int]) -> None:
        if not self._session.write(_SET_ANSWERS, (json_object(answers), execution_id)):
            raise LedgerError(f"no execution {execution_id!r} to note answers of")

    def set_status(self, execution_id: str, status: ExecutionStatus) -> None:
        if not self._session.write(_SET_STATUS, (status.value, execution_id)):
            raise LedgerError(f"no execution {execution_id!r} to set {status.value}")

    def leave(self, execution_id: str, status: ExecutionStatus) -> bool:
        row = (status.value, execution_id, ExecutionStatus.RUNNING.value)
        return bool(self._session.write(_LEAVE, row))

    def move_children(
        self, parent_id: str, checkpoint_ids: Sequence[str], new_parent_id: str
    ) -> None:
        rows = [(new_parent_id, parent_id, checkpoint_id) for checkpoint_id in checkpoint_ids]
        self._session.write_many(_MOVE_CHILDREN, rows)

    def delete(self, execution_id: str) -> None:
        self._session.write(_DELETE, (execution_id,))


class SqlNodeBoundaries:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, execution_id: str) -> builtins.list[NodeBoundary]:
        rows = self._session.fetch(_BOUNDARIES_OF, {"execution_id": execution_id})
        return [boundary_of(row) for row in rows]

    def list_many(self, execution_ids: Sequence[str]) -> dict[str, builtins.list[NodeBoundary]]:
        found: dict[str, list[NodeBoundary]] = {}
        for row in self._session.fetch_by_ids(_BOUNDARIES_OF_MANY, execution_ids):
            boundary = boundary_of(row)
            found.setdefault(boundary.execution_id, []).append(boundary)
        return found

    def save_many(self, boundaries: Sequence[NodeBoundary]) -> None:
        self._session.write_many(_SAVE_BOUNDARY, [boundary_row(b) for b in boundaries])

    def set_exit(
        self, execution_id: str, task_ids: Sequence[str], exit_checkpoint_id: CheckpointId
    ) -> None:
        rows = [(exit_checkpoint_id, execution_id, task_id) for task_id in task_ids]
        self._session.write_many(_SET_EXIT, rows)

    def move(self, execution_id: str, task_ids: Sequence[str], to_execution_id: str) -> None:
        rows = [(to_execution_id, execution_id, task_id) for task_id in task_ids]
        self._session.write_many(_MOVE, rows)
