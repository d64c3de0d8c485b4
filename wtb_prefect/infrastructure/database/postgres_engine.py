"""The ledger in a PostgreSQL database, through psycopg."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from sqlalchemy import URL, Column, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.dialects.postgresql.base import PGTypeCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from wtb_prefect.errors import InvalidInputError, LedgerError
from wtb_prefect.infrastructure.database.address import DATABASE_URL, full_url
from wtb_prefect.infrastructure.database.connections import (
    BUSY_SECONDS,
    Backend,
    Begin,
    Connections,
    set_backend,
)
from wtb_prefect.infrastructure.database.faults import faults, one_line

AT_ONCE = 10
"""Connections of one process with readers, and as many with writers."""

CONNECT_SECONDS = 10

_WRITERS = 0x577462  # any number: it names the queue of all writers of this database
_LOCK_NOT_AVAILABLE = "55P03"

# All writers of a database wait for each other at the door, as on SQLite, and so read what the one
# before has committed: no transaction fails half way, and there is nothing to retry. The lock is
# the first thing they take, so that they cannot hold each other up either. READ COMMITTED, because
# a snapshot taken together with the lock would be older than what its last holder wrote.
BEGIN = Begin(
    reading="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    writing=f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({_WRITERS})",
)

# A writer whose machine is gone must not hold the queue for the two hours of the system's default.
_SETTINGS = (
    f"SET lock_timeout = '{BUSY_SECONDS:.0f}s'; SET tcp_keepalives_idle = 30; "
    "SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
)


def open_postgres(url: str) -> Engine:
    """The engine of a database that is there already; `url` as `shown_url` gives it, or complete.

    Raises:
        InvalidInputError: psycopg is not installed.
        LedgerError: the database cannot be reached, or keeps no Unicode.
    """
    parsed = postgres_url(url)
    place = f"{parsed.host or 'this machine'}/{parsed.database}"
    engine = _create(parsed)
    try:
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            encoding = driver.info.parameter_status("server_encoding")
    except faults() as exc:
        raise LedgerError(
            f"the ledger {place} cannot be opened: {one_line(exc)}; {advice(str(exc))}"
        ) from exc
    if encoding != "UTF8":
        raise LedgerError(
            f"the ledger {place} keeps {encoding} only: give it a database with ENCODING 'UTF8'"
        )
    return engine


def postgres_url(url: str) -> URL:
    """The URL with its password, for psycopg.

    Raises:
        InvalidInputError: psycopg is not installed, or it is no URL.
    """
    try:
        import_module("psycopg")  # it may be there without the library it needs
    except ImportError as exc:
        raise InvalidInputError(
            f"PostgreSQL needs its drivers ({one_line(exc)}): pip install 'wtb-prefect[postgres]'"
        ) from exc
    try:
        return make_url(full_url(url)).set(drivername="postgresql+psycopg")
    except SQLAlchemyError:
        # Neither the URL nor a cause that may quote it: it can hold a password.
        raise InvalidInputError("database_url is no URL: postgresql://user@host/database") from None


def advice(said: str) -> str:
    """What to do about a connection that was refused; servers may speak other languages."""
    if "does not exist" in said and "database" in said:
        return "create the database first (createdb)"
    if "password" in said or "authentication" in said:
        return f"its password is taken from PGPASSWORD, ~/.pgpass or {DATABASE_URL}"
    return "is the server running, and are host, port, user and database right?"


def connect_arguments(url: str) -> dict[str, Any]:
    """The same as psycopg's own arguments, for a connection whose statements are transactions."""
    parsed = postgres_url(url)
    dialect: Any = PGDialect_psycopg
    _, arguments = dialect().create_connect_args(parsed)
    return {**arguments, **_settings(parsed)}


def _settings(url: URL) -> dict[str, Any]:
    """What the URL does not say itself."""
    defaults = {"connect_timeout": CONNECT_SECONDS, "application_name": "wtb"}
    return {
        "autocommit": True,
        # Statements prepared before another process migrated would fail.
        "prepare_threshold": None,
        **{name: value for name, value in defaults.items() if name not in url.query},
    }


def _create(url: URL) -> Engine:
    engine = create_engine(
        url,
        paramstyle="format",  # parameters go by position, as on SQLite
        poolclass=NullPool,  # see `Connections`
        # A session ends its transaction itself; a second rollback would find nothing.
        pool_reset_on_return=None,
        use_native_hstore=False,  # asks the server at every connect
        connect_args=_settings(url),
    )
    engine.dialect.type_compiler_instance = _ByCodePoint(engine.dialect)
    connections = _BoundedConnections(engine, BEGIN)
    set_backend(engine, Backend(begin=BEGIN, connections=connections, queue=None))
    event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, _record: Any) -> None:
    connection.execute(_SETTINGS)


class _ByCodePoint(PGTypeCompiler):
    """Text columns sort by code points, whatever the language of the database: as on SQLite, and
    as what is compared with times and names in Python."""

    def visit_VARCHAR(self, type_: Any, **kw: Any) -> str:
        return super().visit_VARCHAR(type_, **kw) + _collation(kw)

    def visit_TEXT(self, type_: Any, **kw: Any) -> str:
        return super().visit_TEXT(type_, **kw) + _collation(kw)


def _collation(kw: dict[str, Any]) -> str:
    """Only where a column is made; casts name the type alone."""
    return ' COLLATE "C"' if isinstance(kw.get("type_expression"), Column) else ""


class _BoundedConnections(Connections):
    """No more than the server has room for, and none that the server has dropped.

    Readers and writers are counted apart: a reader inside a writer's block gets its connection
    while others wait for that writer.
    """

    def __init__(self, engine: Engine, begin: Begin) -> None:
        super().__init__(engine, begin)
        self._free = {write: threading.BoundedSemaphore(AT_ONCE) for write in (False, True)}

    def begin(self, *, write: bool) -> tuple[PoolProxiedConnection, DBAPICursor]:
        if not self._free[write].acquire(timeout=BUSY_SECONDS):
            raise LedgerError(
                f"all {AT_ONCE} connections of this process to the ledger were busy for "
                f"{BUSY_SECONDS:.0f} s"
            )
        try:
            return self._begin_on_a_live_one(write=write)
        except BaseException as exc:  # also Ctrl-C: its place is free again
            self._free[write].release()
            if getattr(exc, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise LedgerError(f"the ledger was busy for {BUSY_SECONDS:.0f} s") from exc
            raise

    def end(self, connection: PoolProxiedConnection, *, write: bool) -> None:
        try:
            self.give_back(connection)
        finally:
            self._free[write].release()

    def give_back(self, connection: PoolProxiedConnection) -> None:
        """One that the server has dropped needs no rollback; the kept ones are as old."""
        if _is_dropped(connection):
            connection.invalidate()
            self.forget()
        else:
            super().give_back(connection)

    def _begin_on_a_live_one(self, *, write: bool) -> tuple[PoolProxiedConnection, DBAPICursor]:
        """On a new connection if a kept one turns out to be dropped: nothing was done on it."""
        kept = bool(self._kept)
        try:
            return super().begin(write=write)
        except faults() as exc:
            if not kept or getattr(exc, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise
        self.forget()
        return super().begin(write=write)


def _is_dropped(connection: PoolProxiedConnection) -> bool:
    driver: Any = connection.driver_connection
    return driver is None or bool(driver.closed)
