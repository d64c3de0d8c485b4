"""SQLite with the settings the ledger's promises rest on."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, NullPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.connections import (
    BUSY_SECONDS,
    Backend,
    Begin,
    Connections,
    set_backend,
)
from wtb_prefect.infrastructure.database.faults import one_line

BEGIN = Begin(reading="BEGIN", writing="BEGIN IMMEDIATE")


def open_sqlite(url: URL) -> Engine:
    """The engine of a file; it and its folder are made if missing.

    Raises:
        LedgerError: the file cannot be opened or is no database.
    """
    if url.database in (None, "", ":memory:"):
        raise LedgerError("the ledger needs a file: sqlite:///path")
    path = str(url.database)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        engine = _create(url)
        engine.connect().close()
    except (OSError, SQLAlchemyError, sqlite3.Error, UnicodeEncodeError) as exc:
        raise LedgerError(f"the ledger {path} cannot be opened: {one_line(exc)}") from exc
    return engine


def _create(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool,  # see `Connections`
        # A session ends its transaction itself; a second rollback would find nothing.
        pool_reset_on_return=None,
        connect_args={
            "timeout": BUSY_SECONDS,
            "isolation_level": None,
            "check_same_thread": False,  # used by one thread at a time, whichever that is
        },
    )
    # SQLite's own queue is polling with sleeps of up to 100 ms, in no order.
    queue = threading.Lock()
    set_backend(engine, Backend(begin=BEGIN, connections=Connections(engine, BEGIN), queue=queue))
    event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    mode = _journal_mode(connection)
    if mode != "wal":
        raise LedgerError(f"the ledger's file system allows no WAL journal (only {mode!r})")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _journal_mode(connection: sqlite3.Connection) -> str:
    # Two processes that make the same new file WAL at once: SQLite refuses one of them without
    # waiting for the busy timeout, because both hold a read lock the other one waits for.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return str(mode)
