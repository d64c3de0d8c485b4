"""One transaction on one connection, as the repositories use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement, Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql.compiler import SQLCompiler

from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.connections import BUSY_SECONDS, backend_of
from wtb_prefect.infrastructure.database.faults import faults, ledger_fault, ledger_faults
from wtb_prefect.infrastructure.database.rows import Fetched, Row
from wtb_prefect.infrastructure.database.statements import Query, Statement, chunks, reading


class Session:
    """Opened, used, and closed once; database faults come out as `LedgerError`.

    It speaks to the driver: statements are text with positional parameters already, and all that
    SQLAlchemy's own connection adds per call took a fifth of what a cell of trivial nodes costs.
    """

    __slots__ = ("_connection", "_connections", "_cursor", "_dialect", "_lock", "_write")

    def __init__(self, engine: Engine, *, write: bool) -> None:
        backend = backend_of(engine)
        self._connections = backend.connections
        self._dialect = engine.dialect
        self._write = write
        self._lock = backend.queue if write else None
        self._connection: PoolProxiedConnection | None = None
        self._cursor: DBAPICursor | None = None

    def open(self) -> None:
        if self._lock and not self._lock.acquire(timeout=BUSY_SECONDS):
            self._lock = None
            raise LedgerError(f"the ledger was busy for {BUSY_SECONDS:.0f} s")
        try:
            with ledger_faults:
                self._connection, self._cursor = self._connections.begin(write=self._write)
        except BaseException:  # also Ctrl-C: the writers' queue must not stay closed
            self.close()
            raise

    def commit(self) -> None:
        self._open_cursor()
        assert self._connection is not None
        with ledger_faults:
            self._connection.commit()
        self.close()

    def close(self) -> None:
        """Ends the transaction; what is not committed is rolled back."""
        connection, self._connection, self._cursor = self._connection, None, None
        lock, self._lock = self._lock, None
        try:
            if connection is not None:
                with ledger_faults:
                    self._connections.end(connection, write=self._write)
        finally:
            if lock is not None:
                lock.release()

    def write(self, statement: Statement, row: Row) -> int:
        """Runs a write; answers how many rows it touched."""
        cursor = self._writable()
        try:
            cursor.execute(statement.text(self._dialect), row)
        except faults() as exc:
            raise ledger_fault(exc) from exc
        return cursor.rowcount

    def write_many(self, statement: Statement, rows: list[Row]) -> None:
        """Runs a write once per row."""
        cursor = self._writable()
        if rows:
            try:
                cursor.executemany(statement.text(self._dialect), rows)
            except faults() as exc:
                raise ledger_fault(exc) from exc

    def write_by_ids(self, statement: ClauseElement, ids: Sequence[str]) -> None:
        """Runs a write with an expanding parameter `ids`, for any number of ids.

        Where there is no index, one statement for many ids reads the table once for all of them.
        """
        cursor = self._writable()
        compiled = statement.compile(dialect=self._dialect)
        assert isinstance(compiled, SQLCompiler)
        with ledger_faults:
            for chunk in chunks(ids):
                ready = compiled.construct_expanded_state({"ids": chunk})
                cursor.execute(ready.statement, ready.positional_parameters)

    def fetch(self, query: Query, values: Mapping[str, Any] | None = None) -> Sequence[Fetched]:
        """All rows of a query, as tuples."""
        cursor = self._open_cursor()
        with ledger_faults:
            return reading(query, self._dialect).rows(cursor, values or {})

    def fetch_by_ids(self, query: Query, ids: Sequence[str]) -> Iterator[Fetched]:
        """The rows of a query with an expanding parameter `ids`, for any number of ids."""
        for chunk in chunks(ids):
            yield from self.fetch(query, {"ids": chunk})

    def fetch_one(self, query: Query, **values: str) -> Fetched | None:
        """The only row of a query, or None."""
        rows = self.fetch(query, values)
        return rows[0] if rows else None

    def _writable(self) -> DBAPICursor:
        if not self._write:
            # It would fail half way as soon as another writer came first (see `Begin`).
            raise LedgerError("this unit of work was opened for reading: use write=True")
        return self._open_cursor()

    def _open_cursor(self) -> DBAPICursor:
        if self._cursor is None:
            raise LedgerError("the unit of work is not open: it is used once, inside `with`")
        return self._cursor
