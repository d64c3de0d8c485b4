"""Claims to verify, and the audit log."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, delete, func, select

from wtb_prefect.domain.outbox import AuditEntry, OutboxEvent, OutboxStatus
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.rows import audit_of, audit_row, event_of, event_row
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import insert_or_ignore, insert_row
from wtb_prefect.infrastructure.database.tables import row_columns

_o = tables.outbox_events.c
_a = tables.audit_log.c

# Oldest is first written: clocks of several machines, or one set back, say otherwise.
_EVENTS = select(*row_columns(tables.outbox_events)).order_by(_o.sequence).limit(bindparam("limit"))
_EVENTS_OF = _EVENTS.where(_o.status == bindparam("status"))
_COUNT = select(_o.status, func.count()).group_by(_o.status)
_DELETE_ABOUT = delete(tables.outbox_events).where(
    _o.aggregate_id.in_(bindparam("ids", expanding=True))
)
_DELETE = delete(tables.outbox_events).where(_o.event_id.in_(bindparam("ids", expanding=True)))
_ADD_EVENT = insert_or_ignore(tables.outbox_events)

_ENTRIES = select(*row_columns(tables.audit_log)).order_by(_a.sequence).limit(bindparam("limit"))
_ENTRIES_OF = _ENTRIES.where(_a.subject == bindparam("subject"))
_APPEND = insert_row(tables.audit_log)


class SqlOutbox:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list(
        self, status: OutboxStatus | None = None, limit: int = 1000
    ) -> builtins.list[OutboxEvent]:
        if status is None:
            rows = self._session.fetch(_EVENTS, {"limit": limit})
        else:
            rows = self._session.fetch(_EVENTS_OF, {"limit": limit, "status": status.value})
        return [event_of(row) for row in rows]

    def count(self) -> Mapping[OutboxStatus, int]:
        counted = {OutboxStatus(row[0]): row[1] for row in self._session.fetch(_COUNT)}
        return {status: counted.get(status, 0) for status in OutboxStatus}

    def add_many(self, events: Sequence[OutboxEvent]) -> None:
        self._session.write_many(_ADD_EVENT, [event_row(event) for event in events])

    def delete(self, event_ids: Sequence[str]) -> None:
        self._session.write_by_ids(_DELETE, event_ids)

    def delete_about(self, aggregate_ids: Sequence[str]) -> None:
        self._session.write_by_ids(_DELETE_ABOUT, aggregate_ids)


class SqlAuditLog:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, subject: str | None = None, limit: int = 1000) -> builtins.list[AuditEntry]:
        if subject is None:
            rows = self._session.fetch(_ENTRIES, {"limit": limit})
        else:
            rows = self._session.fetch(_ENTRIES_OF, {"limit": limit, "subject": subject})
        return [audit_of(row) for row in rows]

    def append(self, entry: AuditEntry) -> None:
        self._session.write(_APPEND, audit_row(entry))
