"""What happens in a test bench, mirrored into Prefect's events.

The audit log is the record; these are for watching, and for automations. A Prefect event has the
id of ours, so telling it again is no second one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from prefect.events import emit_event

from wtb_prefect.domain.events import DomainEvent, ExecutionEvent
from wtb_prefect.infrastructure.events.event_bus import EventBus

_listening: ContextVar[EventBus | None] = ContextVar("wtb_listening", default=None)


@contextmanager
def listening(bus: EventBus) -> Iterator[None]:
    """Flows and tasks of this context publish on this bus, as far as they run in this process."""
    token = _listening.set(bus)
    try:
        yield
    finally:
        _listening.reset(token)


@contextmanager
def mirrored_events(*, steps: bool) -> Iterator[EventBus]:
    """The bus of this context, told to Prefect; around a task of a flow, the flow's.

    `steps`: also of every node, checkpoint, commit and workspace. A batch has thousands of them,
    which a server takes in at some tens per second.
    """
    found = _listening.get()
    bus = EventBus() if found is None else found
    if bus.is_mirrored:
        yield bus
        return

    def mirror(event: DomainEvent) -> None:
        if steps or not event.of_steps:
            emit(event)

    end = bus.subscribe(DomainEvent, mirror)
    bus.is_mirrored = True
    try:
        with listening(bus):
            yield bus
    finally:
        bus.is_mirrored = False
        end()


def emit(event: DomainEvent) -> None:
    """One event: `wtb.<noun>.<past verb>`, of the resource `wtb.<noun>.<id>`."""
    noun = event.name.partition(".")[0]
    emit_event(
        event=f"wtb.{event.name}",
        occurred=event.at,
        resource={
            "prefect.resource.id": f"wtb.{noun}.{event.subject}",
            "prefect.resource.name": _name(event),
        },
        related=[
            {"prefect.resource.id": f"wtb.{kind}.{found}", "prefect.resource.role": f"wtb-{kind}"}
            for kind in ("batch", "execution")
            if kind != noun and (found := getattr(event, f"{kind}_id", None)) is not None
        ],
        payload=event.details(),
        id=UUID(event.event_id),
    )


def _name(event: DomainEvent) -> str:
    if isinstance(event, ExecutionEvent) and event.case_id is not None:
        return f"{event.case_id}-{event.repeat}"
    said: Any = getattr(event, "project", None) or getattr(event, "node", None)
    return str(said or event.subject)
