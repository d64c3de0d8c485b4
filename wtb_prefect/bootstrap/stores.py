"""The stores of a project without its graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy import Engine

from wtb_prefect.application.stores import OpenStores
from wtb_prefect.bootstrap.blobs import open_blobs
from wtb_prefect.bootstrap.ledger import open_database
from wtb_prefect.domain.events import Tell, tell_nobody
from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.domain.project import ProjectLocations, WorkspaceStrategy
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.checkpoints.langgraph_store import SqliteCheckpointStore
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork
from wtb_prefect.infrastructure.file_tracking.tracker import LocalFileTracker
from wtb_prefect.infrastructure.logs.cell_logs import CellLogs
from wtb_prefect.infrastructure.system_clock import SystemClock
from wtb_prefect.infrastructure.workspace.folders import FolderWorkspaces
from wtb_prefect.infrastructure.workspace.overlays import why_no_overlays

if TYPE_CHECKING:
    from wtb_prefect.infrastructure.checkpoints.postgres_store import PostgresCheckpointStore

# What nodes may expect to be there, also when it is empty.
_STANDING = ("inputs", "outputs")


def open_checkpoints(
    where: Path | str, serializer: JsonPlusSerializer | None = None
) -> SqliteCheckpointStore | PostgresCheckpointStore:
    """The store in an SQLite file, or behind the URL of a PostgreSQL database.

    Raises:
        CheckpointError: it cannot be opened.
        InvalidInputError: its driver is not installed.
    """
    if isinstance(where, Path):
        return SqliteCheckpointStore(where, serializer)
    try:
        from wtb_prefect.infrastructure.checkpoints.postgres_store import (  # noqa: PLC0415 - optional
            PostgresCheckpointStore,
        )
    except ImportError as exc:
        raise InvalidInputError(
            f"PostgreSQL needs its drivers ({exc}): pip install 'wtb-prefect[postgres]'"
        ) from exc
    return PostgresCheckpointStore(where, serializer)


@contextmanager
def open_databases(
    where: ProjectLocations, serializer: JsonPlusSerializer | None = None
) -> Iterator[tuple[Engine, SqliteCheckpointStore | PostgresCheckpointStore]]:
    """Ledger and checkpoints; closes what it opened.

    Raises:
        LedgerError, CheckpointError: one cannot be opened.
        InvalidInputError: a driver is not installed.
    """
    with ExitStack() as stack:
        database = open_database(where.database_url)
        stack.callback(database.dispose)
        checkpoints = open_checkpoints(where.checkpoints or where.database_url, serializer)
        stack.callback(checkpoints.close)
        yield database, checkpoints


def open_workspaces(
    where: ProjectLocations,
    blobs: BlobStore,
    tracker: LocalFileTracker,
    tell: Tell = tell_nobody,
    *,
    strategy: WorkspaceStrategy = "copy",
) -> FolderWorkspaces:
    """The workspaces of a project, with the folders that its base workspace has for them.

    Raises:
        InvalidInputError: they are to be overlay mounts, and this machine cannot mount.
    """
    base = where.workspace
    standing = [name for name in _STANDING if base is not None and (base / name).is_dir()]
    root = where.output_dir / "workspaces"
    is_overlay = strategy == "overlay"
    if is_overlay and (reason := why_no_overlays(root)) is not None:
        raise InvalidInputError(
            f"workspace_strategy='overlay' cannot be had here: {reason}; leave it out to have "
            "workspaces copied"
        )
    return FolderWorkspaces(root, tracker, blobs.strategy, standing, tell, overlay=is_overlay)


@contextmanager
def open_stores(where: ProjectLocations) -> Iterator[OpenStores]:
    """Ledger, checkpoints, workspaces and logs; closes what it opened.

    Raises:
        LedgerError, CheckpointError, FileTrackingError: a store cannot be opened.
    """
    blobs = open_blobs(where)
    tracker = LocalFileTracker(blobs)
    with open_databases(where) as (database, checkpoints):
        yield OpenStores(
            open_uow=partial(SqlAlchemyUnitOfWork, database),
            checkpoints=checkpoints,
            workspaces=open_workspaces(where, blobs, tracker),
            logs=CellLogs(where.output_dir / "logs"),
            clock=SystemClock(),
        )
