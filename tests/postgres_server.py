"""A PostgreSQL server of the tests' own, and a fresh database for each test."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

USER = "wtb"
TEMPLATE = "wtb_template"

# A killed server loses nothing that the system has: only a machine that goes down would.
SETTINGS = (
    *("fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0"),
    *("shared_buffers=32MB", "max_connections=60", "autovacuum=off"),
)

EMPTY = """
SET session_replication_role = replica;  -- rows may go in any order
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid != pg_backend_pid();
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
        AND tablename NOT IN ('alembic_version', 'checkpoint_migrations')
    LOOP EXECUTE 'DELETE FROM ' || quote_ident(name); END LOOP;
END $$
"""


def binaries() -> Path | None:
    """The newest installed server's programs."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    versions = sorted(found, key=lambda file: int(file.parts[-3]))
    if versions:
        return versions[-1].parent
    elsewhere = shutil.which("postgres")
    return None if elsewhere is None else Path(elsewhere).parent


class PostgresServer:
    """A server in a temporary folder, on a free port of this machine."""

    def __init__(self, programs: Path, folder: Path, settings: Sequence[str] = SETTINGS) -> None:
        self._programs = programs
        self._settings = settings
        self.data = folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._empty: list[str] = []
        self.port = _free_port()

    def create(self) -> None:
        """A new cluster, whose texts sort in a language's order: the ledger must not follow it."""
        options = ["--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C.UTF-8"]
        self._run("initdb", f"--pgdata={self.data}", f"--username={USER}", *options)

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = [f"--{setting}" for setting in self._settings]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                _as_nobody_special(
                    str(self._programs / "postgres"),
                    *("-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""),
                    *options,
                ),
                stdout=log,
                stderr=log,
                cwd=self.data,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT drops all connections (`fast`), SIGQUIT does so at once (`immediate`)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def restart(self) -> None:
        """As after a crash."""
        self.stop(signal.SIGQUIT)
        self.start()

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Runs statements as the administrator."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def make_template(self) -> None:
        """An empty database that sorts as English does, with the tables of this version."""
        from wtb_prefect.bootstrap.ledger import open_database
        from wtb_prefect.infrastructure.checkpoints.postgres_store import PostgresCheckpointStore

        self.execute(
            f"CREATE DATABASE {TEMPLATE}_empty TEMPLATE template0 ENCODING 'UTF8' "
            "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'",
            f"CREATE DATABASE {TEMPLATE} TEMPLATE {TEMPLATE}_empty",
        )
        open_database(self.url(TEMPLATE)).dispose()
        PostgresCheckpointStore(self.url(TEMPLATE)).close()

    @contextlib.contextmanager
    def empty_database(self) -> Iterator[str]:
        """One with the tables of this version and no rows, whoever still used it: making a new one
        takes 0.2 s, emptying one a tenth of that."""
        name = self._empty.pop() if self._empty else self._create(f"TEMPLATE {TEMPLATE}")
        yield self.url(name)
        self.execute(EMPTY, database=name)
        self._empty.append(name)

    @contextlib.contextmanager
    def new_database(self, options: str = f"TEMPLATE {TEMPLATE}_empty") -> Iterator[str]:
        """One without tables; gone at the end, whoever still uses it."""
        name = self._create(options)
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _create(self, options: str) -> str:
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return name

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = _as_nobody_special(str(self._programs / program), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def postgres_server(programs: Path, settings: Sequence[str] = SETTINGS) -> Iterator[PostgresServer]:
    """A running server with its template."""
    # Not below pytest's folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="wtb-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, *_unprivileged())
        server = PostgresServer(programs, folder, settings)
        try:
            server.create()
            server.start()
            server.make_template()
            yield server
        finally:
            server.stop()


def _as_nobody_special(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return list(command)
    user, group = _unprivileged()
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *command]


def _unprivileged() -> tuple[int, int]:
    """The user that Debian's package makes, or the one that owns nothing."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    raise AssertionError("no user to run PostgreSQL as")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
