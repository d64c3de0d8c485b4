"""Who listens to what, in this process."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from wtb_prefect.domain.events import DomainEvent

HISTORY = 1000

logger = logging.getLogger("wtb_prefect.events")

E = TypeVar("E", bound=DomainEvent)


class EventBus:
    """Hands each event to those who subscribed to its class or one above it; thread-safe.

    Handlers are called in the thread that publishes, in the order they subscribed, with no lock
    held: they may publish, subscribe and call the bench themselves. What a handler publishes is
    handed out after the event it was called with, so every handler sees both in the same order.
    The last `size` events are kept to be looked at. `is_mirrored`: somebody passes them on to the
    outside already.
    """

    def __init__(self, size: int = HISTORY) -> None:
        self.is_mirrored = False
        self._lock = threading.Lock()
        self._handlers: list[tuple[type[DomainEvent], Callable[[Any], None]]] = []
        self._history: deque[DomainEvent] = deque(maxlen=size)
        self._waiting = threading.local()

    def subscribe(self, kind: type[E], handler: Callable[[E], None]) -> Callable[[], None]:
        """Calls `handler` with every event of `kind` from now on; the answer ends that."""
        entry = (kind, handler)
        with self._lock:
            self._handlers = [*self._handlers, entry]

        def unsubscribe() -> None:
            with self._lock:
                self._handlers = [other for other in self._handlers if other is not entry]

        return unsubscribe

    def publish(self, event: DomainEvent) -> None:
        """Keeps the event and hands it to its handlers; nested, after the one being handed out."""
        if not self._handlers:  # most processes: 4 us less an event, of which a cell has twenty
            with self._lock:
                self._history.append(event)
            return
        waiting: deque[DomainEvent] | None = getattr(self._waiting, "events", None)
        if waiting is not None:
            waiting.append(event)
            return
        self._waiting.events = waiting = deque([event])
        try:
            while waiting:
                self._hand_out(waiting.popleft())
        finally:
            del self._waiting.events

    def history(self, kind: type[E]) -> list[E]:
        """The kept events of `kind` (`DomainEvent`: all), oldest first."""
        with self._lock:
            kept = list(self._history)
        return [event for event in kept if isinstance(event, kind)]

    def _hand_out(self, event: DomainEvent) -> None:
        with self._lock:
            self._history.append(event)
            handlers = self._handlers
        for kind, handler in handlers:
            if not isinstance(event, kind):
                continue
            try:
                handler(event)
            except Exception:  # a listener's fault must not end what it listens to
                logger.exception("A handler of %s failed", event.name)
