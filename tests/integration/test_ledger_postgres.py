"""The ledger on PostgreSQL: what depends on the server, its connections and other processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from tests.contracts import ledger_rows as make
from tests.ledger_processes import finish, start
from tests.postgres_server import PostgresServer
from wtb_prefect.bootstrap.ledger import open_ledger
from wtb_prefect.bootstrap.stores import open_checkpoints
from wtb_prefect.errors import InvalidInputError, LedgerError
from wtb_prefect.infrastructure.checkpoints import postgres_store
from wtb_prefect.infrastructure.database import postgres_engine, tables
from wtb_prefect.infrastructure.database.connections import KEPT_CONNECTIONS
from wtb_prefect.infrastructure.database.engine import open_engine
from wtb_prefect.infrastructure.database.schema import upgrade
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = open_engine(postgres_url)
    yield engine
    engine.dispose()


def ask(url: str, query: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def append(engine: Engine, subject: str) -> None:
    with SqlAlchemyUnitOfWork(engine, write=True) as uow:
        uow.audit_log.append(make.audit(subject))
        uow.commit()


def subjects(engine: Engine) -> list[str]:
    with SqlAlchemyUnitOfWork(engine) as uow:
        return [entry.subject for entry in uow.audit_log.list()]


class TestOpening:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("postgresql://u:hidden-word@127.0.0.1:1/db", r"127\.0\.0\.1/db .*server running"),
            ("postgresql+psycopg://u@nowhere.invalid/db", "nowhere.invalid/db .*host, port"),
            ("{server}/missing", "missing .*createdb"),
        ],
    )
    def test_says_in_one_line_what_to_do(
        self, postgres: PostgresServer, url: str, says: str
    ) -> None:
        server = postgres.url("").rstrip("/")
        with pytest.raises(LedgerError, match=says) as caught:
            open_engine(url.format(server=server))
        assert "\n" not in str(caught.value)
        assert "hidden-word" not in str(caught.value)

    def test_a_password_that_is_asked_for(self, postgres: PostgresServer) -> None:
        """The server is told to ask one user for it."""
        rule = "host all guarded 127.0.0.1/32 scram-sha-256\n"
        rules = postgres.data / "pg_hba.conf"
        before = rules.read_text()
        postgres.execute("CREATE USER guarded SUPERUSER PASSWORD 'hidden word/1'")
        url = postgres.url("postgres").replace("wtb@", "guarded@")
        loaded = "SELECT pg_conf_load_time()"
        then = ask(postgres.url("postgres"), loaded)
        rules.write_text(rule + before)
        postgres.execute("SELECT pg_reload_conf()")
        while ask(postgres.url("postgres"), loaded) == then:
            time.sleep(0.01)
        try:
            for wrong in (url, url.replace("guarded@", "guarded:hidden-wrong@")):
                with pytest.raises(LedgerError, match="PGPASSWORD") as caught:
                    open_engine(wrong)
                assert "hidden" not in str(caught.value)
            open_engine(url.replace("guarded@", "guarded:hidden%20word%2F1@")).dispose()
        finally:
            rules.write_text(before)
            postgres.execute("SELECT pg_reload_conf()", "DROP USER guarded")

    def test_without_the_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither the ledger's nor LangGraph's."""
        for name in ("psycopg", "langgraph.checkpoint.postgres"):
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, name, None)
                patch.delitem(sys.modules, postgres_store.__name__)
                with pytest.raises(InvalidInputError, match=r"wtb-prefect\[postgres\]") as caught:
                    open_checkpoints("postgresql://host/db")
            assert "\n" not in str(caught.value)
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(InvalidInputError, match=r"wtb-prefect\[postgres\]"):
            open_engine("postgresql://host/db")

    def test_refuses_a_database_without_unicode(self, postgres: PostgresServer) -> None:
        options = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
        with (
            postgres.new_database(options) as url,
            pytest.raises(LedgerError, match="keeps LATIN1 only"),
        ):
            open_engine(url)

    def test_looking_makes_no_tables(self, new_postgres_url: str) -> None:
        with open_ledger(new_postgres_url) as found:
            assert found is None
        assert ask(new_postgres_url, "SELECT * FROM pg_tables WHERE schemaname = 'public'") == []


class TestSchema:
    def test_the_migrations_make_exactly_the_tables(self, new_postgres_url: str) -> None:
        engine = open_engine(new_postgres_url)
        upgrade(engine)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, tables.metadata) == []
        engine.dispose()

    def test_texts_sort_by_code_points_in_any_database(
        self, engine: Engine, postgres_url: str
    ) -> None:
        """The tests' databases sort as English does: `a` before `B`."""
        ((sample,),) = ask(postgres_url, "SELECT 'a' < 'B'")
        assert sample
        names = ", ".join(f"'{name}'" for name in tables.metadata.tables)
        other = ask(
            postgres_url,
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_name IN "
            f"({names}) AND data_type IN ('text', 'character varying') "
            "AND collation_name IS DISTINCT FROM 'C'",
        )
        assert other == []
        for name in "aBäb":
            with SqlAlchemyUnitOfWork(engine, write=True) as uow:
                uow.workflows.save(make.workflow(name, name))
                uow.commit()
        with SqlAlchemyUnitOfWork(engine) as uow:
            assert [one.name for one in uow.workflows.list()] == sorted("aBäb")

    def test_refuses_a_newer_version(self, postgres: PostgresServer) -> None:
        with postgres.new_database() as url:
            engine = open_engine(url)
            upgrade(engine)
            with engine.connect() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            with pytest.raises(LedgerError, match=r"'9999'.*use the newer") as caught:
                upgrade(engine)
            assert "\n" not in str(caught.value)
            engine.dispose()

    def test_an_upgrade_that_fails_changes_nothing(self, new_postgres_url: str) -> None:
        engine = open_engine(new_postgres_url)
        with engine.connect() as connection:  # the last table of the migration is in the way
            connection.exec_driver_sql("CREATE TABLE node_boundaries (x int)")
        with pytest.raises(LedgerError, match="already exists"):
            upgrade(engine)
        engine.dispose()
        made = ask(new_postgres_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert made == [("node_boundaries",)]

    def test_two_that_open_a_new_ledger_at_once_wait_for_each_other(
        self, new_postgres_url: str
    ) -> None:
        """Both have seen that there is nothing; then one makes the tables, and the other finds
        them."""
        engines = [open_engine(new_postgres_url) for _ in range(2)]
        threads = [threading.Thread(target=upgrade, args=(engine,)) for engine in engines]
        waiting = "SELECT * FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with psycopg.connect(new_postgres_url, autocommit=True) as first:
            first.execute(postgres_engine.BEGIN.writing.encode())
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 20
            while len(ask(new_postgres_url, waiting)) < 2:
                assert time.monotonic() < deadline, "nobody waits"
                time.sleep(0.02)
        for thread, engine in zip(threads, engines, strict=True):
            thread.join()
            append(engine, "s")
            engine.dispose()
        assert ask(new_postgres_url, "SELECT count(*) FROM audit_log") == [(2,)]


class TestWriters:
    def test_of_processes_and_threads_never_fail_half_way(
        self, engine: Engine, postgres_url: str
    ) -> None:
        """Each reads first, and writes what it read: a lost turn would show."""
        code = """
import threading
def count_up():
    for n in range(25):
        with SqlAlchemyUnitOfWork(engine, write=True) as uow:
            seen = len(uow.audit_log.list("tick"))
            uow.audit_log.append(make.audit("tick", str(seen)))
            uow.commit()
threads = [threading.Thread(target=count_up) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
"""
        for process in [start(code, postgres_url) for _ in range(2)]:
            finish(process)
        with SqlAlchemyUnitOfWork(engine) as uow:
            assert [one.action for one in uow.audit_log.list("tick")] == [
                str(n) for n in range(100)
            ]

    def test_one_that_waits_too_long_is_told(
        self, engine: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_engine, "_SETTINGS", "SET lock_timeout = '50ms'")
        hasty = open_engine(postgres_url)
        with SqlAlchemyUnitOfWork(engine, write=True) as first:
            with pytest.raises(LedgerError, match="busy"), SqlAlchemyUnitOfWork(hasty, write=True):
                pass
            first.audit_log.append(make.audit("s"))
            first.commit()
        append(hasty, "t")
        assert subjects(hasty) == ["s", "t"]
        hasty.dispose()

    def test_a_killed_process_leaves_no_half_transaction(
        self, engine: Engine, postgres_url: str
    ) -> None:
        code = """
with SqlAlchemyUnitOfWork(engine, write=True) as uow:
    uow.audit_log.append(make.audit("half"))
    print("half way", flush=True)
    sys.stdin.read()
"""
        process = start(code, postgres_url)
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        append(engine, "next")
        assert subjects(engine) == ["next"]


class TestConnections:
    def test_are_bounded_whoever_waits_for_whom(self, engine: Engine, postgres_url: str) -> None:
        """Forty writers at once, each with a reader in its block: nobody waits for ever, and the
        server sees no more connections than it may."""
        most: list[int] = []

        def write() -> None:
            with SqlAlchemyUnitOfWork(engine, write=True) as uow:
                uow.audit_log.append(make.audit("s"))
                subjects(engine)
                most.append(len(ask(postgres_url, MINE)))
                uow.commit()

        threads = [threading.Thread(target=write) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(subjects(engine)) == 40
        assert max(most) <= 2 * postgres_engine.AT_ONCE
        assert len(ask(postgres_url, MINE)) <= KEPT_CONNECTIONS

    def test_a_failed_unit_leaves_nothing_behind(self, engine: Engine) -> None:
        """PostgreSQL refuses everything after a fault until the transaction is ended."""
        with SqlAlchemyUnitOfWork(engine, write=True) as uow:
            uow.workflows.save(make.workflow())
            uow.executions.add(make.execution())
            uow.commit()
        for _ in range(2 * postgres_engine.AT_ONCE):
            with SqlAlchemyUnitOfWork(engine, write=True) as uow, pytest.raises(LedgerError):
                uow.executions.add(make.execution())
        append(engine, "s")
        assert subjects(engine) == ["s"]

    def test_idle_ones_that_the_server_dropped_go_unnoticed(
        self, engine: Engine, postgres_url: str
    ) -> None:
        with SqlAlchemyUnitOfWork(engine), SqlAlchemyUnitOfWork(engine):
            pass  # two are kept
        drop_all(postgres_url)
        assert subjects(engine) == []
        append(engine, "s")
        drop_all(postgres_url)
        append(engine, "t")
        assert subjects(engine) == ["s", "t"]

    def test_one_dropped_at_work_is_told_and_the_next_unit_works(
        self, engine: Engine, postgres_url: str
    ) -> None:
        """Whether it is found out by a statement or by the commit."""

        def lost(last: Callable[[SqlAlchemyUnitOfWork], None]) -> None:
            with SqlAlchemyUnitOfWork(engine, write=True) as uow:
                uow.audit_log.append(make.audit("lost"))
                drop_all(postgres_url)
                last(uow)

        for last in (
            lambda uow: uow.audit_log.append(make.audit("lost")),
            lambda uow: uow.commit(),
        ):
            with pytest.raises(LedgerError, match="terminating connection"):
                lost(last)
        append(engine, "kept")
        assert subjects(engine) == ["kept"]


MINE = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'wtb'"
)


def drop_all(url: str) -> None:
    """As a server does that is stopped."""
    ask(url, MINE.replace("SELECT pid", "SELECT pg_terminate_backend(pid, 5000)"))
