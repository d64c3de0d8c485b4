"""Checkpoints, and going back to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wtb_prefect.domain.events.base import DomainEvent
from wtb_prefect.domain.file_processing import CheckpointFileLink


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEvent(DomainEvent):
    """Of one checkpoint of the top graph of an execution."""

    execution_id: str
    batch_id: str | None
    checkpoint_id: str

    @property
    def subject(self) -> str:
        return self.checkpoint_id

    @property
    def aggregate_id(self) -> str:
        return self.execution_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCreated(CheckpointEvent):
    """Saved and recorded, with the files that go with it (`commit_id`; None: there are none)."""

    name = "checkpoint.created"
    of_steps = True

    step: int
    commit_id: str | None


def checkpoint_created(link: CheckpointFileLink, batch_id: str | None) -> CheckpointCreated:
    """The event of a recorded checkpoint."""
    return CheckpointCreated(
        at=link.created_at,
        execution_id=link.execution_id,
        batch_id=batch_id,
        checkpoint_id=link.checkpoint_id,
        step=link.step,
        commit_id=link.commit_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRolledBack(CheckpointEvent):
    """The execution stands at this checkpoint again. `kept_as` is the execution that keeps what
    came after (None: nothing did), `left` where it stood before."""

    name = "checkpoint.rolled_back"

    left: str | None
    kept_as: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointBranched(CheckpointEvent):
    """The execution goes on from a checkpoint of `source_id`, with these variants."""

    name = "checkpoint.branched"

    source_id: str
    variants: Mapping[str, str]
    edited: tuple[str, ...] = ()
