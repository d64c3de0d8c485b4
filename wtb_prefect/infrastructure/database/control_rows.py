"""What controls an execution, as a row."""

from __future__ import annotations

from wtb_prefect.domain.batch_test import Owner
from wtb_prefect.domain.execution_control import ControlRequest, ExecutionControl
from wtb_prefect.infrastructure.database.codecs import json_list, names
from wtb_prefect.infrastructure.database.rows import Fetched, Row


def control_row(control: ExecutionControl) -> Row:
    owner = control.owner
    return (
        control.execution_id,
        owner.host if owner else None,
        owner.pid if owner else None,
        owner.started if owner else None,
        control.asked.value if control.asked else None,
        json_list(control.breakpoints),
        control.graph,
        control.encoding,
        control.payload,
    )


def control_of(row: Fetched) -> ExecutionControl:
    execution_id, host, pid, started, asked, breakpoints, graph, encoding, payload = row
    return ExecutionControl(
        execution_id=execution_id,
        owner=None if host is None else Owner(host=host, pid=pid, started=started),
        asked=None if asked is None else ControlRequest(asked),
        breakpoints=names(breakpoints),
        graph=graph,
        encoding=encoding,
        payload=payload,
    )
