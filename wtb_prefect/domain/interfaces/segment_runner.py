"""Running stretches of execution somewhere: in this process, on threads, on Ray."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """A stretch to run: one case and repeat, the combinations still together, and the way here.

    `wanted` are the combinations that have no answer yet: the others only shape the tree, so that
    the same request always walks the same tree. Plain JSON values, so that it travels by value;
    everything big is found through the ledger.
    """

    case_id: str
    repeat: int
    combinations: tuple[str, ...]
    wanted: tuple[str, ...]
    path: tuple[tuple[str, str], ...] = ()
    parent_id: str | None = None
    shared: bool = True
    unshared_reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The item as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> WorkItem:
        """The item from what `to_json` gave (lists become tuples again)."""
        path = tuple((node, variant) for node, variant in data["path"])
        names = {key: tuple(data[key]) for key in ("combinations", "wanted")}
        return WorkItem(**{**data, **names, "path": path})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Items for one worker. `return_forks`: hand children back at a fork instead of going on."""

    items: tuple[WorkItem, ...]
    return_forks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkResult:
    """What a worker did; how its cells ended stands in the ledger.

    `remaining` are forks handed back, `lost` the items of a worker that died, with the reason.
    `files_outside` appeared in the worker's current directory instead of in workspaces.
    """

    remaining: tuple[WorkItem, ...] = ()
    lost: tuple[WorkItem, ...] = ()
    lost_reason: str | None = None
    node_executions: int = 0
    files_outside: tuple[str, ...] = ()


class SegmentRunner(Protocol):
    """Runs chunks; results come as they are ready."""

    @property
    def slots(self) -> int:
        """How many chunks run at once."""
        ...

    def submit(self, chunk: Chunk) -> None:
        """Starts a chunk; never more than `slots` are unfinished."""
        ...

    async def next_result(self) -> ChunkResult:
        """The next finished chunk's result, or a partial one (progress) if the runner has it."""
        ...

    @property
    def in_flight(self) -> int: ...
