"""What is kept of a project, without its graph: enough to delete, prune and measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wtb_prefect.domain.interfaces.checkpoint_store import CheckpointStore
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.surroundings import CellLogFiles
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.interfaces.workspace import WorkspaceStore


class Stores(Protocol):
    """Ledger and checkpoints of a project; a `Session` has them too."""

    @property
    def open_uow(self) -> OpenUnitOfWork: ...
    @property
    def checkpoints(self) -> CheckpointStore: ...
    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStores:
    """The stores alone: what was run can be removed after its graph is gone."""

    open_uow: OpenUnitOfWork
    checkpoints: CheckpointStore
    workspaces: WorkspaceStore
    logs: CellLogFiles
    clock: Clock
