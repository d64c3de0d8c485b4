"""The ledger alone: looking at results must not wait for LangGraph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from wtb_prefect.domain.interfaces.surroundings import CellLogReader
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.infrastructure.database.address import is_postgres
from wtb_prefect.infrastructure.database.engine import open_engine
from wtb_prefect.infrastructure.database.schema import upgrade, version_of
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork
from wtb_prefect.infrastructure.logs.cell_logs import CellLogs


def open_database(url: str) -> Engine:
    """The ledger's database, brought to this version's schema.

    Raises:
        LedgerError: it cannot be opened, or is of a newer version.
        InvalidInputError: its driver is not installed.
    """
    engine = open_engine(url)
    try:
        upgrade(engine)
    except BaseException:  # also Ctrl-C: what was opened here is closed here, then raised on
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def open_ledger(url: str) -> Iterator[OpenUnitOfWork | None]:
    """The ledger of a project; None before its first run (looking makes no files or tables).

    Raises:
        LedgerError: it cannot be opened, or is of a newer version.
        InvalidInputError: its driver is not installed.
    """
    if not is_postgres(url) and not Path(url.removeprefix("sqlite:///")).exists():
        yield None
        return
    engine = open_engine(url)
    try:
        if is_postgres(url) and version_of(engine) is None:
            yield None
            return
        upgrade(engine)
        yield partial(SqlAlchemyUnitOfWork, engine)
    finally:
        engine.dispose()


def open_cell_logs(locations: ProjectLocations) -> CellLogReader:
    """What the executions of a project printed and logged."""
    return CellLogs(locations.output_dir / "logs")
