"""One transaction on one connection, as the repositories use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Executable

from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.engine import (
    BUSY_SECONDS,
    begin,
    ledger_faults,
    writer_lock,
)
from wtb_prefect.infrastructure.database.rows import Fetched, Row
from wtb_prefect.infrastructure.database.statements import Statement, chunks


class Session:
    """Opened, used, and closed once; database faults come out as `LedgerError`."""

    __slots__ = ("_connection", "_engine", "_lock", "_write")

    def __init__(self, engine: Engine, *, write: bool) -> None:
        self._engine = engine
        self._write = write
        self._lock = writer_lock(engine) if write else None
        self._connection: Connection | None = None

    def open(self) -> None:
        if self._lock and not self._lock.acquire(timeout=BUSY_SECONDS):
            self._lock = None
            raise LedgerError(f"the ledger was busy for {BUSY_SECONDS:.0f} s")
        try:
            with ledger_faults:
                self._connection = self._engine.connect()
                begin(self._connection, write=self._write)
        except BaseException:  # also Ctrl-C: the writers' queue must not stay closed
            self.close()
            raise

    def commit(self) -> None:
        connection = self._open_connection()
        with ledger_faults:
            try:
                connection.commit()
            except BaseException:  # whatever it is, it is raised on
                # A foreign key refuses at commit; SQLAlchemy takes the transaction for ended then,
                # while SQLite keeps it open.
                connection.connection.rollback()
                raise
        self.close()

    def close(self) -> None:
        """Ends the transaction; what is not committed is rolled back."""
        connection, self._connection = self._connection, None
        lock, self._lock = self._lock, None
        try:
            if connection is not None:
                with ledger_faults:
                    connection.close()
        finally:
            if lock is not None:
                lock.release()

    def write(self, statement: Statement, row: Row) -> int:
        """Runs a write; answers how many rows it touched."""
        connection = self._writable()
        with ledger_faults:
            text = statement.text(connection.dialect)
            return connection.exec_driver_sql(text, row).rowcount

    def write_many(self, statement: Statement, rows: list[Row]) -> None:
        """Runs a write once per row."""
        connection = self._writable()
        if rows:
            with ledger_faults:
                connection.exec_driver_sql(statement.text(connection.dialect), rows)

    def fetch(
        self, query: Executable, values: Mapping[str, Any] | None = None
    ) -> Sequence[Fetched]:
        """All rows of a query."""
        connection = self._open_connection()
        with ledger_faults:
            return connection.execute(query, values).all()

    def fetch_by_ids(self, query: Executable, ids: Sequence[str]) -> Iterator[Fetched]:
        """The rows of a query with an expanding parameter `ids`, for any number of ids."""
        for chunk in chunks(ids):
            yield from self.fetch(query, {"ids": chunk})

    def fetch_one(self, query: Executable, **values: str) -> Fetched | None:
        """The only row of a query, or None."""
        rows = self.fetch(query, values)
        return rows[0] if rows else None

    def _writable(self) -> Connection:
        if not self._write:
            # It would fail half way as soon as another writer came first (see `engine.begin`).
            raise LedgerError("this unit of work was opened for reading: use write=True")
        return self._open_connection()

    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise LedgerError("the unit of work is not open: it is used once, inside `with`")
        return self._connection
