"""The state of generated graphs, and the count of the calls of their nodes."""

from __future__ import annotations

import operator
import threading
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.graph.message import add_messages
from langgraph.managed.is_last_step import IsLastStep, RemainingSteps


class Brief:
    """A dataclass whose repr names only what is not the default: failures print whole graphs."""

    def __repr__(self) -> str:
        shown = []
        for known in fields(self):  # type: ignore[arg-type]
            value = getattr(self, known.name)
            default = known.default_factory() if callable(known.default_factory) else known.default
            if value != default:
                shown.append(f"{known.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Hypothesis prints dataclasses field by field unless told otherwise."""
        printer.text(repr(self))


class Calls:
    """How often each node's body was called, and each visit's, from whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._tasks: Counter[str] = Counter()

    def add(self, name: str, task: str = "") -> None:
        with self._lock:
            self._calls[name] += 1
            self._tasks[task] += 1

    def take(self) -> Counter[str]:
        """The calls since this was last asked, by node."""
        return self.take_both()[0]

    def take_both(self) -> tuple[Counter[str], Counter[str]]:
        """The calls since this was last asked, by node and by LangGraph's id of the visit."""
        with self._lock:
            calls, self._calls = self._calls, Counter()
            tasks, self._tasks = self._tasks, Counter()
        return calls, tasks


CALLS = Calls()


def join(old: list[str], new: list[str]) -> list[str]:
    """Appends. A subgraph that shares the log returns all of it, which doubles it; so the oldest
    half of a long one becomes a digest."""
    both = [*old, *new]
    if len(both) <= 120:
        return both
    return [f"#{zlib.crc32(repr(both[:-60]).encode())}", *both[-60:]]


def add_counts(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    """A reducer that shows when a write is applied twice."""
    return {key: old.get(key, 0) + new.get(key, 0) for key in sorted({*old, *new})}


def add_modulo(old: int, new: int) -> int:
    """A reducer whose result routers depend on."""
    return (old + new) % 1009


def most(old: int, new: int) -> int:
    """The larger one: what is sent to many nodes at once may be written back by all of them."""
    return max(old, new)


def concatenate(old: list[str], writes: Iterable[list[str]]) -> list[str]:
    """The reducer of the DeltaChannel: a list, and the writes of several steps at once."""
    return [*old, *(item for write in writes for item in write)]


class State(TypedDict, total=False):
    """`last` has no reducer: only nodes that run alone in their super-step write it."""

    log: Annotated[list[str], join]
    total: Annotated[int, add_modulo]
    visits: Annotated[dict[str, int], add_counts]
    last: str


@dataclass(frozen=True)
class Context:
    """What the project gives to every run of its graph."""

    tag: str


EXTRAS: dict[str, tuple[str, Any]] = {
    "send": ("item", Annotated[int, most]),
    "messages": ("messages", Annotated[list[Any], add_messages]),
    "delta": ("delta", Annotated[list[str], DeltaChannel(concatenate, snapshot_frequency=3)]),
    "steps left": ("left", RemainingSteps),
    "last step": ("is_last", IsLastStep),
    "own": ("own", Annotated[list[str], operator.add]),
}
"""Feature -> the state key it adds."""


def schema(extras: Iterable[str], *, last: bool = True) -> Any:
    """The state schema of a graph with these extra keys. Graphs that run beside others have no
    `last`: all of them would write it back to their parent."""
    keys: dict[str, Any] = {
        "log": Annotated[list[str], join],
        "total": Annotated[int, add_modulo],
        "visits": Annotated[dict[str, int], add_counts],
    }
    if last:
        keys["last"] = str
    keys.update(EXTRAS[extra] for extra in sorted(extras) if extra in EXTRAS)
    return TypedDict("GeneratedState", keys, total=False)  # type: ignore[operator]
