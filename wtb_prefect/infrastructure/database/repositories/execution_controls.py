"""What single executions need to be controlled."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from wtb_prefect.domain.execution_control import ControlRequest, ExecutionControl
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.control_rows import control_of, control_row
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import fixed, set_columns, upsert, value

_c = tables.execution_controls.c

_CONTROL = select(tables.execution_controls).where(_c.execution_id == bindparam("execution_id"))
_ASKED = select(_c.asked).where(_c.execution_id == bindparam("execution_id"))
_SAVE = upsert(tables.execution_controls, "execution_id")
_ASK = fixed(
    set_columns(tables.execution_controls.update(), "asked").where(_c.execution_id == value())
)


class SqlExecutionControls:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, execution_id: str) -> ExecutionControl | None:
        row = self._session.fetch_one(_CONTROL, execution_id=execution_id)
        return None if row is None else control_of(row)

    def asked(self, execution_id: str) -> ControlRequest | None:
        row = self._session.fetch_one(_ASKED, execution_id=execution_id)
        return None if row is None or row[0] is None else ControlRequest(row[0])

    def save(self, control: ExecutionControl) -> None:
        self._session.write(_SAVE, control_row(control))

    def ask(self, execution_id: str, request: ControlRequest) -> None:
        if not self._session.write(_ASK, (request.value, execution_id)):
            raise LedgerError(f"no controlled execution {execution_id!r} to ask")
