"""Brings a ledger's tables to the version this package works with."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from sqlalchemy import Connection, Engine, String, column, inspect, select, table
from sqlalchemy.exc import OperationalError, ProgrammingError

from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.connections import backend_of
from wtb_prefect.infrastructure.database.engine import begin
from wtb_prefect.infrastructure.database.faults import ledger_faults

HEAD = "0004"
"""The newest migration: known here so that a ledger at head is seen without importing Alembic."""

MIGRATIONS = Path(__file__).parent / "migrations"

_VERSION_TABLE = "alembic_version"
_VERSION = select(column("version_num", String)).select_from(table(_VERSION_TABLE))


def upgrade(engine: Engine) -> None:
    """Brings the ledger to `HEAD`; several processes may do so at once.

    Raises:
        LedgerError: the ledger is of a version this package does not know, or cannot be written.
    """
    if not _is_at_head(engine):
        queue = backend_of(engine).queue or nullcontext()
        with queue, ledger_faults, engine.connect() as connection:
            # The write transaction is the lock: whoever comes second finds the work done.
            begin(connection, write=True)
            _migrate(connection)
            connection.commit()


def _is_at_head(engine: Engine) -> bool:
    with ledger_faults, engine.connect() as connection:
        try:
            return bool(connection.scalar(_VERSION) == HEAD)
        except (OperationalError, ProgrammingError):
            # A new file has no such table; any other fault shows again when the version is read.
            return False


def version_of(engine: Engine) -> str | None:
    """The version of the ledger's tables; None if there are none."""
    with ledger_faults, engine.connect() as connection:
        return _version(connection)


def _migrate(connection: Connection) -> None:
    version = _version(connection)
    if version == HEAD:
        return
    # Importing Alembic takes longer than most ledgers need to open.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise LedgerError(
            f"the ledger {connection.engine.url.database} has version {version!r}, this "
            f"wtb-prefect knows up to {HEAD!r}: use the newer wtb-prefect that wrote it"
        )
    command.upgrade(config, HEAD)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    version: str | None = connection.scalar(_VERSION)
    return version
