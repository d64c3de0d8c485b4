"""Folders that executions work in."""

from __future__ import annotations

from dataclasses import dataclass

from wtb_prefect.domain.events.base import DomainEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceEvent(DomainEvent):
    """Of the folder of an execution (None: of an owner that died)."""

    of_steps = True

    path: str
    execution_id: str | None = None

    @property
    def subject(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def aggregate_id(self) -> str:
        return self.execution_id or self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceCreated(WorkspaceEvent):
    """The folder was made, in the way that `strategy` names."""

    name = "workspace.created"

    strategy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceForked(WorkspaceEvent):
    """It was filled with the files of the execution that this one goes on from."""

    name = "workspace.forked"

    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceActivated(WorkspaceEvent):
    """Nodes work in it from now on; told once per attempt."""

    name = "workspace.activated"

    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceCleanedUp(WorkspaceEvent):
    """It was taken away; `orphaned`: its process had died without doing so."""

    name = "workspace.cleaned_up"

    orphaned: bool = False
