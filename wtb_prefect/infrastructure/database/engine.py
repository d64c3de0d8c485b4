"""Opens the ledger's database."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.address import is_postgres
from wtb_prefect.infrastructure.database.connections import backend_of
from wtb_prefect.infrastructure.database.sqlite_engine import open_sqlite


def open_engine(url: str) -> Engine:
    """The engine of a ledger: `sqlite:///path`, or `postgresql://user@host/database`.

    Raises:
        LedgerError: the URL is not one of a ledger, or its database cannot be opened.
        InvalidInputError: PostgreSQL is wanted and its driver is not installed.
    """
    if is_postgres(url):
        from wtb_prefect.infrastructure.database.postgres_engine import (  # noqa: PLC0415 - optional
            open_postgres,
        )

        return open_postgres(url)
    try:
        parsed = make_url(url)
    except SQLAlchemyError as exc:
        raise LedgerError("the ledger's URL is no database URL") from exc
    if parsed.get_backend_name() != "sqlite":
        raise LedgerError(
            f"the ledger does not run on {parsed.get_backend_name()}; use sqlite:/// or postgresql://"
        )
    return open_sqlite(parsed)


def begin(connection: Connection, *, write: bool) -> None:
    """Begins a transaction on a connection of SQLAlchemy's."""
    connection.exec_driver_sql(backend_of(connection.engine).begin.text(write=write))
