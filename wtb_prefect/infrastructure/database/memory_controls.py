"""What single executions need to be controlled, in memory."""

from __future__ import annotations

from wtb_prefect.domain.execution_control import ControlRequest, ExecutionControl
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database import control_rows, tables
from wtb_prefect.infrastructure.database.memory_tables import MemoryRepository


class MemoryExecutionControls(MemoryRepository):
    def get(self, execution_id: str) -> ExecutionControl | None:
        return self._get(tables.execution_controls, control_rows.control_of, execution_id)

    def asked(self, execution_id: str) -> ControlRequest | None:
        control = self.get(execution_id)
        return None if control is None else control.asked

    def save(self, control: ExecutionControl) -> None:
        self._session.put(tables.execution_controls, control_rows.control_row(control))

    def ask(self, execution_id: str, request: ControlRequest) -> None:
        key = (execution_id,)
        if not self._session.update(tables.execution_controls, key, asked=request.value):
            raise LedgerError(f"no controlled execution {execution_id!r} to ask")
