"""What an audit looks into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wtb_prefect.application.batch_owner import IsAlive
from wtb_prefect.application.collect_garbage import GarbageStores
from wtb_prefect.domain.interfaces.checkpoint_store import CheckpointStore
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStores:
    """All stores of a project. `copies` are folders where a lost content may be found again."""

    open_uow: OpenUnitOfWork
    checkpoints: CheckpointStore
    blobs: BlobStore
    garbage: GarbageStores
    copies: Sequence[Path]
    clock: Clock
    is_alive: IsAlive
