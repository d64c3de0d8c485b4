"""Opens the ledger's database with the settings its promises rest on."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from wtb_prefect.errors import LedgerError

BUSY_SECONDS = 30.0
KEPT_CONNECTIONS = 5

# sqlite3 speaks for itself while a new connection is set up, and when it is given text with lone
# surrogates or numbers beyond 64 bits.
FAULTS = (SQLAlchemyError, sqlite3.Error, UnicodeEncodeError, OverflowError)
_WRITER_LOCK = "ledger_writer_lock"
_CONNECTIONS = "ledger_connections"


def ledger_fault(exc: BaseException) -> LedgerError:
    """What the database said, as the ledger's error."""
    return LedgerError(f"the ledger failed: {_one_line(exc)}")


class LedgerFaults:
    """Inside this block, what the database says comes out as `LedgerError`."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, FAULTS):
            raise ledger_fault(exc) from exc


ledger_faults = LedgerFaults()


class Connections:
    """Connections between two units of work, the most recent one first: its cache is warm.

    SQLAlchemy's pool takes 25 us to hand one out and to take it back, this list 1 us, and a cell of
    five nodes has six units of work. It has no upper bound, so that no thread waits for one while
    it holds the ledger's turn; after `Engine.dispose` it keeps nothing any more.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: list[PoolProxiedConnection] = []
        self._keeps = KEPT_CONNECTIONS
        event.listen(engine, "engine_disposed", self._close)

    def take(self) -> PoolProxiedConnection:
        """One that is free, or a new one."""
        try:
            return self._kept.pop()
        except IndexError:
            return self._engine.raw_connection()

    def give_back(self, connection: PoolProxiedConnection) -> None:
        """Rolls back what is not committed; one that cannot even do that is thrown away."""
        try:
            connection.rollback()
        except BaseException:  # whatever it is, it is raised on
            connection.invalidate()
            raise
        if len(self._kept) < self._keeps:
            self._kept.append(connection)
        else:
            connection.close()

    def _close(self, _engine: Engine) -> None:
        self._keeps = 0
        while self._kept:
            self._kept.pop().close()


def open_engine(url: str) -> Engine:
    """The engine of a ledger; for `sqlite:///path` the file and its folder are made if missing.

    Raises:
        LedgerError: the URL is not one of a ledger, or its file cannot be opened or is no database.
    """
    parsed = _ledger_url(url)
    path = str(parsed.database)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        engine = _create(parsed)
        engine.connect().close()
    except (OSError, *FAULTS) as exc:
        raise LedgerError(f"the ledger {path} cannot be opened: {_one_line(exc)}") from exc
    return engine


def begin(connection: Connection, *, write: bool) -> None:
    """Begins a transaction on a connection of SQLAlchemy's."""
    connection.exec_driver_sql(begin_text(write=write))


def begin_text(*, write: bool) -> str:
    """Begins a transaction; a writer takes its place in the queue now, not at its first write.

    A deferred transaction that reads first and writes later fails at once when another writer came
    in between: no waiting helps it.
    """
    return "BEGIN IMMEDIATE" if write else "BEGIN"


def writer_lock(engine: Engine) -> threading.Lock:
    """Where the writers of this process queue.

    SQLite's own queue is polling with sleeps of up to 100 ms, in no order.
    """
    lock: threading.Lock = engine.get_execution_options()[_WRITER_LOCK]
    return lock


def connections(engine: Engine) -> Connections:
    """The open connections of an engine."""
    found: Connections = engine.get_execution_options()[_CONNECTIONS]
    return found


def _ledger_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except SQLAlchemyError as exc:
        raise LedgerError(f"the ledger's URL {url!r} is no database URL") from exc
    if parsed.get_backend_name() != "sqlite":
        raise LedgerError(f"the ledger does not run on {parsed.get_backend_name()}; use sqlite:///")
    if parsed.database in (None, "", ":memory:"):
        raise LedgerError("the ledger needs a file: sqlite:///path")
    return parsed


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
        execution_options={_WRITER_LOCK: threading.Lock()},
    )
    engine.update_execution_options(**{_CONNECTIONS: Connections(engine)})
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


def _one_line(exc: BaseException) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    return " ".join(str(cause).split())
