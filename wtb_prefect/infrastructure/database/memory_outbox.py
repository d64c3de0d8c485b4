"""Claims to verify and the audit log, in memory."""

from __future__ import annotations

import builtins
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import takewhile

from wtb_prefect.domain.outbox import AuditEntry, OutboxEvent, OutboxMetrics, OutboxStatus, is_due
from wtb_prefect.infrastructure.database import rows, tables
from wtb_prefect.infrastructure.database.memory_tables import MemoryRepository


class MemoryOutbox(MemoryRepository):
    def list(
        self, status: OutboxStatus | None = None, limit: int = 1000
    ) -> builtins.list[OutboxEvent]:
        wanted = {} if status is None else {"status": status.value}
        found = self._session.where(tables.outbox_events, **wanted)
        return [rows.event_of(row) for row in found[:limit]]

    def count(self) -> Mapping[OutboxStatus, int]:
        return {
            status: len(self._session.where(tables.outbox_events, status=status.value))
            for status in OutboxStatus
        }

    def metrics(self, now: datetime) -> OutboxMetrics:
        counts, pending = self.count(), self._pending()
        leases = [e.lease_until for e in pending if e.lease_until is not None]
        return OutboxMetrics(
            pending=counts[OutboxStatus.PENDING],
            processed=counts[OutboxStatus.PROCESSED],
            failed=counts[OutboxStatus.FAILED],
            oldest_seconds=(now - pending[0].created_at).total_seconds() if pending else None,
            tries=Counter(e.attempts for e in self.list(limit=sys.maxsize)),
            expired=sum(lease <= now for lease in leases),
        )

    def claim(self, limit: int, now: datetime, lease_until: datetime) -> builtins.list[OutboxEvent]:
        by_aggregate: dict[str, list[OutboxEvent]] = {}
        for event in self._pending():
            by_aggregate.setdefault(event.aggregate_id, []).append(event)
        taken: list[OutboxEvent] = []
        for events in by_aggregate.values():
            if len(taken) >= limit or not is_due(events[0], now):
                continue
            taken += takewhile(partial(is_due, now=now), events)
        claimed = [replace(e, attempts=e.attempts + 1, lease_until=lease_until) for e in taken]
        self._save(claimed)
        return claimed

    def settle(self, events: Sequence[OutboxEvent]) -> None:
        held = {event.event_id: event for event in self._pending()}
        mine = [e for e in events if e.event_id in held and held[e.event_id].attempts == e.attempts]
        self._save([replace(event, lease_until=None) for event in mine])

    def retry(self, event_id: str) -> bool:
        open_ones = [*self._pending(), *self._failed()]
        return bool(self._again([e for e in open_ones if e.event_id == event_id]))

    def retry_failed(self) -> int:
        return self._again(self._failed())

    def _failed(self) -> builtins.list[OutboxEvent]:
        return self.list(OutboxStatus.FAILED, limit=sys.maxsize)

    def _again(self, events: Sequence[OutboxEvent]) -> int:
        self._save(
            [
                replace(e, status=OutboxStatus.PENDING, attempts=0, next_at=None, lease_until=None)
                for e in events
            ]
        )
        return len(events)

    def prune(self, processed_before: datetime) -> int:
        done = self.list(OutboxStatus.PROCESSED, limit=sys.maxsize)
        old = [e for e in done if e.processed_at and e.processed_at < processed_before]
        self.delete([event.event_id for event in old])
        return len(old)

    def _pending(self) -> builtins.list[OutboxEvent]:
        return self.list(OutboxStatus.PENDING, limit=sys.maxsize)

    def _save(self, events: Sequence[OutboxEvent]) -> None:
        for event in events:
            self._session.put(tables.outbox_events, rows.event_row(event))

    def add_many(self, events: Sequence[OutboxEvent]) -> None:
        for event in events:
            self._session.put_new(tables.outbox_events, rows.event_row(event))

    def delete(self, event_ids: Sequence[str]) -> None:
        for event_id in event_ids:
            self._session.remove(tables.outbox_events, event_id=event_id)

    def delete_about(self, aggregate_ids: Sequence[str]) -> None:
        for aggregate_id in set(aggregate_ids):
            self._session.remove(tables.outbox_events, aggregate_id=aggregate_id)


class MemoryAuditLog(MemoryRepository):
    def list(self, subject: str | None = None, limit: int = 1000) -> builtins.list[AuditEntry]:
        wanted = {} if subject is None else {"subject": subject}
        found = self._session.where(tables.audit_log, **wanted)
        return [rows.audit_of(row) for row in found[:limit]]

    def append(self, entry: AuditEntry) -> None:
        self._session.append(tables.audit_log, rows.audit_row(entry))
