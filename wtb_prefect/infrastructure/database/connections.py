"""Open connections of a ledger's database, and what differs between databases."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection

BUSY_SECONDS = 30.0
KEPT_CONNECTIONS = 5

_BACKEND = "ledger_backend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """How a transaction begins.

    A writer takes its place in the queue now, not at its first write: one that reads first and
    writes later would fail half way when another writer came in between.
    """

    reading: str
    writing: str

    def text(self, *, write: bool) -> str:
        """The statement."""
        return self.writing if write else self.reading


class Connections:
    """Connections between two units of work, the most recent one first: its cache is warm.

    SQLAlchemy's pool takes 25 us to hand one out and to take it back, this list 1 us, and a cell of
    five nodes has six units of work. It has no upper bound, so that no thread waits for one while
    it holds the ledger's turn; after `Engine.dispose` it keeps nothing any more.
    """

    def __init__(self, engine: Engine, begin: Begin) -> None:
        self._engine = engine
        self._begin = begin
        self._kept: list[PoolProxiedConnection] = []
        self._keeps = KEPT_CONNECTIONS
        event.listen(engine, "engine_disposed", self._close)

    def begin(self, *, write: bool) -> tuple[PoolProxiedConnection, DBAPICursor]:
        """A connection with a transaction; `end` ends it."""
        connection = self.take()
        try:
            cursor = connection.cursor()
            cursor.execute(self._begin.text(write=write))
        except BaseException:  # whatever it is, it is raised on
            connection.invalidate()
            raise
        return connection, cursor

    def end(self, connection: PoolProxiedConnection, *, write: bool) -> None:
        """Rolls back what is not committed."""
        self.give_back(connection)

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

    def forget(self) -> None:
        """Closes those that are not in use."""
        while self._kept:
            self._kept.pop().close()

    def _close(self, _engine: Engine) -> None:
        self._keeps = 0
        self.forget()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What a session has to know of its database.

    `queue` is where the writers of this process wait for each other, where the database has no
    queue of its own.
    """

    begin: Begin
    connections: Connections
    queue: threading.Lock | None


def set_backend(engine: Engine, backend: Backend) -> None:
    """Says how an engine's database is used."""
    engine.update_execution_options(**{_BACKEND: backend})


def backend_of(engine: Engine) -> Backend:
    """What `set_backend` said."""
    found: Backend = engine.get_execution_options()[_BACKEND]
    return found
