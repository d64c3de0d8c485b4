"""One stretch at a time between node bodies, so that waiting nodes stay out of step.

Stretches that end their bodies together share the event loop turn by turn, and so are all held up
for as long as all of them take; they then start their next bodies together, and are in step for
good: with four in flight each node of 50 ms took 72 ms. First come, first served spreads them out
within one round, and each takes 57 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

_WORTH_SECONDS = 0.01


class Line:
    """A first-in, first-out lock of one event loop."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Waits for all that came before."""
        if not self._held:
            self._held = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it came just as the task was cancelled
            raise

    def release(self) -> None:
        """Lets the next one go on."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False


@dataclass(slots=True)
class Turn:
    """One stretch's place in the line: taken when a super-step's bodies, routers and writers are
    done, given up before the next bodies begin. In between there is nothing to wait for."""

    line: Line
    _mine: bool = False
    _since: float = field(default_factory=time.monotonic)

    async def take(self) -> None:
        """Waits for the turn, unless the bodies were short: then there is nothing to spread, and
        waiting costs a tenth of a step's time."""
        if not self._mine and time.monotonic() - self._since > _WORTH_SECONDS:
            await self.line.acquire()
            self._mine = True

    def give_up(self) -> None:
        """Lets others go on; the next bodies begin."""
        self._since = time.monotonic()
        if self._mine:
            self._mine = False
            self.line.release()
