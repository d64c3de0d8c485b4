"""Which database a project keeps its ledger and its checkpoints in."""

from __future__ import annotations

from pathlib import Path

from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.database.address import (
    environment_url,
    is_postgres,
    shown_url,
)

DEFAULT = ".wtb/wtb.db"


def database_of(db_path: str | Path | None, database_url: str | None) -> tuple[str, Path | None]:
    """The ledger's URL as it may be shown, and the checkpoints' file if they have one.

    What is given counts, then the environment, then the default file.

    Raises:
        InvalidInputError: both are given, or it is no URL of a database.
    """
    if db_path is not None and database_url is not None:
        raise InvalidInputError("give db_path (an SQLite file) or database_url, not both")
    if db_path is None:
        given = environment_url() if database_url is None else shown_url(database_url)
        shown = given or f"sqlite:///{DEFAULT}"
        if is_postgres(shown):
            return shown, None
        db_path = shown.removeprefix("sqlite:///")
    file = Path(db_path).absolute()
    return f"sqlite:///{file}", file.with_name(f"{file.stem}-checkpoints.db")
