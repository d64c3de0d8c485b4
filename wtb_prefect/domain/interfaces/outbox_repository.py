"""The ledger's outbox and audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from wtb_prefect.domain.outbox import AuditEntry, OutboxEvent, OutboxMetrics, OutboxStatus

EVERYTHING = 10**9
"""As the limit of a list: all there is."""


class OutboxReader(Protocol):
    def list(self, status: OutboxStatus | None = None, limit: int = 1000) -> list[OutboxEvent]:
        """Oldest first."""
        ...

    def count(self) -> Mapping[OutboxStatus, int]:
        """Events by status; a status without events counts 0."""
        ...

    def metrics(self, now: datetime) -> OutboxMetrics: ...


class OutboxWriter(Protocol):
    def add_many(self, events: Sequence[OutboxEvent]) -> None:
        """Inserts; an event whose id exists is left as it is."""
        ...

    def claim(self, limit: int, now: datetime, lease_until: datetime) -> list[OutboxEvent]:
        """Takes pending events that are due, oldest first; nobody else gets them before the lease
        is over. Counts an attempt.

        All of an aggregate or none: never one with an earlier event of its aggregate that waits
        for its next attempt, or that somebody else has. At most `limit`, but for the last
        aggregate, which is taken whole.
        """
        ...

    def settle(self, events: Sequence[OutboxEvent]) -> None:
        """Writes what became of claimed events (status, attempts to come, error) and gives them up.

        One that somebody else has taken since is left alone: its lease was over.
        """
        ...

    def retry(self, event_id: str) -> bool:
        """Makes one that is not processed pending and due, as if never tried; answers whether."""
        ...

    def retry_failed(self) -> int:
        """Makes FAILED events pending again, as if never tried; answers how many."""
        ...

    def prune(self, processed_before: datetime) -> int:
        """Removes events that were processed before a time; answers how many."""
        ...

    def delete(self, event_ids: Sequence[str]) -> None:
        """Removes these claims (any number of ids): they are made anew under another name."""
        ...

    def delete_about(self, aggregate_ids: Sequence[str]) -> None:
        """Removes the claims about these (any number of ids): what they name is gone."""
        ...


class OutboxRepository(OutboxReader, OutboxWriter, Protocol):
    """Claims to verify, by `event_id`."""


class AuditLogReader(Protocol):
    def list(self, subject: str | None = None, limit: int = 1000) -> list[AuditEntry]:
        """Oldest first; about one subject, or all."""
        ...


class AuditLogWriter(Protocol):
    def append(self, entry: AuditEntry) -> None: ...


class AuditLogRepository(AuditLogReader, AuditLogWriter, Protocol):
    """Append-only."""
