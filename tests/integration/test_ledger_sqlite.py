"""The ledger on SQLite: what depends on files, processes and the database's own settings."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from tests.contracts import ledger_rows as make
from tests.ledger_processes import finish, start
from wtb_prefect.domain.identifiers import canonical_json
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database import schema, session, tables
from wtb_prefect.infrastructure.database.codecs import json_text
from wtb_prefect.infrastructure.database.connections import KEPT_CONNECTIONS, backend_of
from wtb_prefect.infrastructure.database.engine import open_engine
from wtb_prefect.infrastructure.database.schema import HEAD, upgrade
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/project/größe/ledger.db"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    upgrade(engine)
    yield engine
    engine.dispose()


class TestSettings:
    def test_every_connection_is_durable_and_checks_references(self, engine: Engine) -> None:
        with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                settings = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
                }
                assert settings == {
                    "journal_mode": "wal",
                    "synchronous": 2,
                    "busy_timeout": 30_000,
                    "foreign_keys": 1,
                }

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
            ("mysql://host/db", "does not run on mysql"),
            ("no url", "no database URL"),
        ],
    )
    def test_refuses_what_is_no_ledger(self, url: str, says: str) -> None:
        with pytest.raises(LedgerError, match=says):
            open_engine(url)

    def test_refuses_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.db"
        path.write_text("notes, " * 1000)
        with pytest.raises(LedgerError, match="not a database") as caught:
            open_engine(f"sqlite:///{path}")
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    def test_refuses_a_path_that_cannot_be_opened(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LedgerError, match="cannot be opened"):
            open_engine(f"sqlite:///{tmp_path}/file/ledger.db")
        with pytest.raises(LedgerError, match="cannot be opened"):
            open_engine(f"sqlite:///{tmp_path}")


class TestSchema:
    def test_the_migrations_make_exactly_the_tables(self, engine: Engine, tmp_path: Path) -> None:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, tables.metadata) == []
        # Alembic does not compare everything SQLite can be told, deferred references for one.
        plain = create_engine(f"sqlite:///{tmp_path}/plain.db")
        tables.metadata.create_all(plain)
        assert declared(engine) == declared(plain)
        plain.dispose()

    def test_head_is_the_newest_migration(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        assert ScriptDirectory.from_config(config).get_current_head() == HEAD

    def test_a_ledger_at_head_is_not_touched(self, engine: Engine, url: str) -> None:
        code = "assert not [name for name in sys.modules if name.startswith('alembic')]"
        with SqlAlchemyUnitOfWork(engine, write=True):  # a writer is at work
            assert finish(start(code, url)) == ""  # it did not wait, nor read the migrations

    def test_refuses_a_newer_version(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(LedgerError, match="'9999'") as caught:
            upgrade(engine)
        assert "\n" not in str(caught.value)

    def test_an_upgrade_that_fails_changes_nothing(self, url: str) -> None:
        engine = open_engine(url)
        with engine.connect() as connection:  # the last table of the migration is in the way
            connection.exec_driver_sql("CREATE TABLE file_mementos (x)")
        with pytest.raises(LedgerError, match="already exists"):
            upgrade(engine)
        assert set(declared(engine)) == {"file_mementos"}
        engine.dispose()

    def test_four_processes_open_a_new_ledger_at_once(self, url: str) -> None:
        code = """
with SqlAlchemyUnitOfWork(engine, write=True) as uow:
    uow.audit_log.append(make.audit(sys.argv[2]))
    uow.commit()
"""
        processes = [start(code, url, str(n)) for n in range(4)]
        for process in processes:
            finish(process)
        engine = open_engine(url)
        with SqlAlchemyUnitOfWork(engine) as uow:
            assert sorted(one.subject for one in uow.audit_log.list()) == ["0", "1", "2", "3"]
        engine.dispose()


def declared(engine: Engine) -> dict[str, list[str]]:
    """What each table and index is declared to be, whatever the order of its words."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL"))
        found = {name: sorted(re.findall(r"\w+|\S", sql)) for name, sql in rows}
    found.pop("alembic_version", None)
    return found


class TestWriters:
    COUNT_UP = """
for n in range(50):
    with SqlAlchemyUnitOfWork(engine, write=True) as uow:
        seen = len(uow.audit_log.list("tick"))  # reading first makes a late writer fail
        uow.audit_log.append(make.audit("tick", str(seen)))
        uow.commit()
"""

    def test_two_processes_never_fail_half_way(self, engine: Engine, url: str) -> None:
        for process in [start(self.COUNT_UP, url) for _ in range(2)]:
            finish(process)
        with SqlAlchemyUnitOfWork(engine) as uow:
            ticks = [one.action for one in uow.audit_log.list("tick")]
        assert ticks == [str(n) for n in range(100)]

    def test_two_threads_never_fail_half_way(self, engine: Engine) -> None:
        failures: list[BaseException] = []

        def count_up() -> None:
            try:
                for _ in range(50):
                    with SqlAlchemyUnitOfWork(engine, write=True) as uow:
                        seen = len(uow.audit_log.list("tick"))
                        uow.audit_log.append(make.audit("tick", str(seen)))
                        uow.commit()
            except LedgerError as exc:
                failures.append(exc)

        threads = [threading.Thread(target=count_up) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        with SqlAlchemyUnitOfWork(engine) as uow:
            assert [one.action for one in uow.audit_log.list()] == [str(n) for n in range(100)]

    def test_a_thread_that_waits_too_long_is_told(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session, "BUSY_SECONDS", 0.05)
        with SqlAlchemyUnitOfWork(engine, write=True) as first:
            with pytest.raises(LedgerError, match="busy"), SqlAlchemyUnitOfWork(engine, write=True):
                pass
            first.audit_log.append(make.audit("s"))
            first.commit()
        with SqlAlchemyUnitOfWork(engine, write=True) as uow:
            assert len(uow.audit_log.list()) == 1

    def test_more_threads_than_the_pool_keeps(self, engine: Engine) -> None:
        barrier = threading.Barrier(20, timeout=30)
        seen: list[int] = []

        def read() -> None:
            with SqlAlchemyUnitOfWork(engine) as uow:
                barrier.wait()
                seen.append(len(uow.workflows.list()))

        threads = [threading.Thread(target=read) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [0] * 20

    def test_a_killed_process_leaves_no_half_transaction(self, engine: Engine, url: str) -> None:
        code = """
with SqlAlchemyUnitOfWork(engine, write=True) as uow:
    uow.workflows.save(make.workflow())
    uow.commit()
with SqlAlchemyUnitOfWork(engine, write=True) as uow:
    # More than the page cache holds, so that half of it is in the journal already.
    for n in range(5000):
        uow.executions.add(make.execution(f"e{n}"))
    print("half way", flush=True)
    sys.stdin.read()
"""
        process = start(code, url)
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        with SqlAlchemyUnitOfWork(engine, write=True) as uow:
            assert uow.workflows.get("w") == make.workflow()
            assert uow.executions.list() == []
            uow.executions.add(make.execution())
            uow.commit()
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


class TestConnections:
    def test_are_kept_between_units_of_work_and_closed_with_the_engine(
        self, engine: Engine, url: str
    ) -> None:
        kept = [backend_of(engine).connections.take() for _ in range(KEPT_CONNECTIONS + 1)]
        for connection in kept:
            backend_of(engine).connections.give_back(connection)
        *within, beyond = [connection.dbapi_connection for connection in kept]
        assert beyond is None
        with SqlAlchemyUnitOfWork(engine, write=True) as uow:  # the most recent one
            uow.audit_log.append(make.audit("s"))
            uow.commit()
        assert open_files(url) > 0
        engine.dispose()
        assert open_files(url) == 0
        assert None not in within

    def test_one_in_use_is_closed_when_it_comes_back_after_that(
        self, engine: Engine, url: str
    ) -> None:
        with SqlAlchemyUnitOfWork(engine):
            engine.dispose()
            assert open_files(url) > 0
        assert open_files(url) == 0

    def test_what_was_not_committed_is_not_there_for_the_next_one(self, engine: Engine) -> None:
        with SqlAlchemyUnitOfWork(engine, write=True) as uow:
            uow.audit_log.append(make.audit("s"))
        with SqlAlchemyUnitOfWork(engine, write=True) as uow:
            assert uow.audit_log.list() == []
            uow.commit()

    def test_one_that_cannot_roll_back_is_not_used_again(self, engine: Engine) -> None:
        connection = backend_of(engine).connections.take()
        driver = connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.close()
        with pytest.raises(sqlite3.ProgrammingError):
            backend_of(engine).connections.give_back(connection)
        with SqlAlchemyUnitOfWork(engine) as uow:
            assert uow.audit_log.list() == []


def open_files(url: str) -> int:
    """How many times this process has the ledger's file open."""
    path = url.removeprefix("sqlite:///")
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return sum(link == os.path.realpath(path) for link in links)


def test_a_lost_file_is_reported_as_the_ledgers_fault(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    engine.dispose()
    (tmp_path / "ledger.db").write_text("damaged " * 1000)
    with pytest.raises(LedgerError, match="not a database"), SqlAlchemyUnitOfWork(engine):
        pass


def test_a_lock_held_by_another_program_is_waited_for(engine: Engine) -> None:
    other = sqlite3.connect(str(engine.url.database), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, other.rollback)
    release.start()
    with SqlAlchemyUnitOfWork(engine, write=True) as uow:
        uow.audit_log.append(make.audit("s"))
        uow.commit()
    release.join()
    other.close()
    with SqlAlchemyUnitOfWork(engine) as uow:
        assert [entry.subject for entry in uow.audit_log.list()] == ["s"]


@pytest.mark.parametrize("value", [{"b": 1, "a": [1.5, None, "größe"]}, "x", []])
def test_json_is_the_domains_canonical_form(value: object) -> None:
    assert json_text(value) == canonical_json(value)
