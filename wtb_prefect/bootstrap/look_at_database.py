"""What a project's database is, without making anything in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wtb_prefect.infrastructure.database.address import is_postgres
from wtb_prefect.infrastructure.database.engine import open_engine
from wtb_prefect.infrastructure.database.schema import HEAD, version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseLook:
    """A database that answers: what runs it, and which version its ledger has (None: no ledger)."""

    server: str
    ledger: str | None

    @property
    def is_newer(self) -> bool:
        """Whether a newer wtb-prefect has written it."""
        return self.ledger is not None and self.ledger > HEAD


def look_at_database(url: str) -> DatabaseLook | None:
    """None if it is a file that is not there yet.

    Raises:
        LedgerError: it cannot be opened.
        InvalidInputError: its driver is not installed.
    """
    if not is_postgres(url) and not Path(url.removeprefix("sqlite:///")).exists():
        return None
    engine = open_engine(url)
    try:
        ledger = version_of(engine)
        version = ".".join(map(str, engine.dialect.server_version_info or ()))
    finally:
        engine.dispose()
    name = "PostgreSQL" if is_postgres(url) else "SQLite"
    return DatabaseLook(server=f"{name} {version}", ledger=ledger)
