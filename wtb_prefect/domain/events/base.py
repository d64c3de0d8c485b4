"""What every event has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar

from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.outbox import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """Something that happened. `subject` is the id of the noun in `name`, `aggregate_id` the
    execution or batch it belongs to, under which the audit log keeps it."""

    name: ClassVar[str]
    of_steps: ClassVar[bool] = False

    at: datetime

    @property
    def subject(self) -> str:
        """Id of what it is about, unique among its kind."""
        # Not abstract: type checkers would refuse `subscribe(DomainEvent, ...)`, so all events.
        raise NotImplementedError

    @property
    def aggregate_id(self) -> str:
        """Id of the execution or batch that it belongs to."""
        return self.subject

    @property
    def event_id(self) -> str:
        """A UUID made from the content: the same event told again is no second one."""
        return stable_id("event", self.name, self.aggregate_id, self.subject, self.at.isoformat())

    def details(self) -> dict[str, Any]:
        """The fields but the time, as JSON values."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _plain(value) for name, value in found.items() if name != "at"}


Tell = Callable[[DomainEvent], None]


def tell_nobody(event: DomainEvent) -> None:
    """Where nobody listens."""


def audit_entry(event: DomainEvent, actor: str) -> AuditEntry:
    """The line of the audit log that says what the event says."""
    return AuditEntry(
        at=event.at,
        actor=actor,
        action=event.name,
        subject=event.aggregate_id,
        details=event.details(),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
