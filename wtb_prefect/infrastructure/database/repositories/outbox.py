"""Claims to verify, and the audit log."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import takewhile

from sqlalchemy import and_, bindparam, delete, func, literal, or_, select, update

from wtb_prefect.domain.outbox import (
    AuditEntry,
    OutboxEvent,
    OutboxMetrics,
    OutboxStatus,
    is_due,
)
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.codecs import (
    prose,
    time_text,
    time_text_or_none,
    time_value,
)
from wtb_prefect.infrastructure.database.rows import audit_of, audit_row, event_of, event_row
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import (
    fixed,
    insert_or_ignore,
    insert_row,
    set_columns,
    value,
)
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

_AT_ONCE = 64
"""Aggregates that are looked at in one query: each has several events."""

_PENDING = _o.status == OutboxStatus.PENDING.value
_DUE = and_(
    _PENDING,
    or_(_o.next_at.is_(None), _o.next_at <= bindparam("now")),
    or_(_o.lease_until.is_(None), _o.lease_until <= bindparam("now")),
)
_earlier = tables.outbox_events.alias()
_HAS_EARLIER = (
    select(literal(1))
    .where(
        _earlier.c.aggregate_id == _o.aggregate_id,
        _earlier.c.status == OutboxStatus.PENDING.value,
        _earlier.c.sequence < _o.sequence,
    )
    .exists()
)
# The first pending event of an aggregate stands for all of it: whoever has a lock on that row has
# the aggregate, and others skip it.
_FIRSTS = (
    select(_o.aggregate_id)
    .where(_DUE, ~_HAS_EARLIER)
    .order_by(_o.sequence)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_PENDING_OF = (
    select(*row_columns(tables.outbox_events))
    .where(_PENDING, _o.aggregate_id.in_(bindparam("ids", expanding=True)))
    .order_by(_o.sequence)
)
_TAKE = fixed(
    set_columns(update(tables.outbox_events), "attempts", "lease_until").where(
        _o.event_id == value()
    )
)
_SETTLE = fixed(
    set_columns(
        update(tables.outbox_events),
        *("status", "next_at", "lease_until", "processed_at", "last_error"),
    ).where(_o.event_id == value(), _o.attempts == value(), _o.status == value())
)
_RETRY = fixed(
    set_columns(update(tables.outbox_events), "status", "attempts", "next_at", "lease_until").where(
        _o.status == value()
    )
)
_RETRY_ONE = fixed(
    set_columns(update(tables.outbox_events), "status", "attempts", "next_at", "lease_until").where(
        _o.event_id == value(), _o.status != value()
    )
)
_PRUNE = fixed(delete(tables.outbox_events).where(_o.status == value(), _o.processed_at < value()))
_OLDEST = select(_o.created_at).where(_PENDING).order_by(_o.sequence).limit(1)
_TRIES = select(_o.attempts, func.count()).group_by(_o.attempts).order_by(_o.attempts)
_EXPIRED = select(func.count()).where(_PENDING, _o.lease_until <= bindparam("now"))

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

    def metrics(self, now: datetime) -> OutboxMetrics:
        counts = self.count()
        oldest = self._session.fetch(_OLDEST)
        ((expired,),) = self._session.fetch(_EXPIRED, {"now": time_text(now)})
        return OutboxMetrics(
            pending=counts[OutboxStatus.PENDING],
            processed=counts[OutboxStatus.PROCESSED],
            failed=counts[OutboxStatus.FAILED],
            oldest_seconds=(now - time_value(oldest[0][0])).total_seconds() if oldest else None,
            tries={row[0]: row[1] for row in self._session.fetch(_TRIES)},
            expired=expired,
        )

    def claim(self, limit: int, now: datetime, lease_until: datetime) -> builtins.list[OutboxEvent]:
        claimed: list[OutboxEvent] = []
        while len(claimed) < limit:
            some = self._claim_some(min(limit, _AT_ONCE), limit - len(claimed), now, lease_until)
            if not some:
                break
            claimed += some
        return claimed

    def _claim_some(
        self, aggregates: int, limit: int, now: datetime, lease_until: datetime
    ) -> builtins.list[OutboxEvent]:
        given = {"now": time_text(now), "limit": aggregates}
        firsts = [row[0] for row in self._session.fetch(_FIRSTS, given)]
        found: dict[str, list[OutboxEvent]] = {}
        for row in self._session.fetch_by_ids(_PENDING_OF, firsts):
            event = event_of(row)
            found.setdefault(event.aggregate_id, []).append(event)
        due: list[OutboxEvent] = []
        for aggregate in firsts:
            if len(due) >= limit:
                break
            due += takewhile(partial(is_due, now=now), found.get(aggregate, ()))
        taken = [replace(e, attempts=e.attempts + 1, lease_until=lease_until) for e in due]
        until = time_text(lease_until)
        self._session.write_many(_TAKE, [(e.attempts, until, e.event_id) for e in taken])
        return taken

    def settle(self, events: Sequence[OutboxEvent]) -> None:
        settled = [
            (
                event.status.value,
                time_text_or_none(event.next_at),
                None,
                time_text_or_none(event.processed_at),
                prose(event.last_error),
                event.event_id,
                event.attempts,
                OutboxStatus.PENDING.value,
            )
            for event in events
        ]
        self._session.write_many(_SETTLE, settled)

    def retry(self, event_id: str) -> bool:
        again = (OutboxStatus.PENDING.value, 0, None, None, event_id, OutboxStatus.PROCESSED.value)
        return bool(self._session.write(_RETRY_ONE, again))

    def retry_failed(self) -> int:
        again = (OutboxStatus.PENDING.value, 0, None, None, OutboxStatus.FAILED.value)
        return self._session.write(_RETRY, again)

    def prune(self, processed_before: datetime) -> int:
        before = time_text(processed_before)
        return self._session.write(_PRUNE, (OutboxStatus.PROCESSED.value, before))

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
