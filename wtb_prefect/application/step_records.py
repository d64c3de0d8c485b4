"""What a recorder keeps of visits and checkpoints until they are in the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from wtb_prefect.domain.execution import NodeFailure
from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.outbox import OutboxEvent


@dataclass(slots=True)
class Visit:
    """A node of a super-step under way; `calls` are its bodies, retries included."""

    node: str
    namespace: str
    started_at: datetime
    started: float
    replayed: bool = False
    opened: bool = False
    calls: int = 0
    duration: float = 0.0
    usage: tuple[int, int] = (0, 0)
    finished: bool = False
    saved: bool = False
    error: NodeFailure | None = None

    @property
    def cached(self) -> bool:
        """Whether a cache answered: it finished, and no body of it ran."""
        return self.finished and not (self.calls or self.opened or self.replayed)


@dataclass(slots=True)
class Front:
    """Where one graph of the execution stands: the top one (""), or a subgraph's namespace."""

    head: CheckpointId | None
    step: int
    visits: dict[str, Visit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The rows of one checkpoint, or of one set of pending writes."""

    boundaries: list[NodeBoundary]
    exits: list[str]
    link: CheckpointFileLink
    commit: FileCommit | None
    events: list[OutboxEvent]

    @property
    def has_visits(self) -> bool:
        """Whether it says anything of bodies that ran."""
        return bool(self.boundaries or self.exits)

    def write(self, uow: UnitOfWork) -> None:
        """Adds the rows to a unit of work."""
        if self.boundaries:
            uow.node_boundaries.save_many(self.boundaries)
        if self.exits:
            link = self.link
            uow.node_boundaries.set_exit(link.execution_id, self.exits, link.checkpoint_id)
        if self.commit is not None:
            uow.file_commits.add(self.commit)
        uow.checkpoint_files.save(self.link)
        uow.outbox.add_many(self.events)


@dataclass(slots=True)
class Spent:
    """What an execution spent since a recorder began, or what of it is not written yet."""

    bodies: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
