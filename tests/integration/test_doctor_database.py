"""`wtb doctor` on databases."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.postgres_server import PostgresServer
from wtb_prefect import cli
from wtb_prefect.bootstrap.ledger import open_database
from wtb_prefect.commands.doctor import _database
from wtb_prefect.infrastructure.database.address import DATABASE_URL
from wtb_prefect.infrastructure.database.schema import HEAD


def test_a_postgresql_database(postgres: PostgresServer, postgres_url: str) -> None:
    """Its version and its ledger; without one nothing is made."""
    check = _database(postgres_url)
    assert (check.status, check.value) == ("ok", postgres_url)
    assert check.note.startswith("PostgreSQL ")
    assert f"answers, ledger version {HEAD}" in check.note
    with postgres.new_database() as url:
        for _ in range(2):
            assert _database(url).note.endswith("answers, no ledger yet")
    with postgres.new_database() as url:
        open_database(url).dispose()
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        newer = _database(url)
    assert newer.status == "broken"
    assert "use the newer" in newer.note


def test_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server said and what to do; never the password, and never an exception."""
    check = _database("postgresql://u@127.0.0.1:1/db")
    assert check.status == "broken"
    assert "is the server running" in check.note
    for url in ("mysql://u:hidden-word@h/db", "postgresql://u:hidden/word@h/db", "hidden-word"):
        monkeypatch.setenv(DATABASE_URL, url)
        check = _database(None)
        assert check.status == "broken"
        assert "postgresql://" in check.note or "%2F" in check.note
        assert "hidden" not in check.note + check.value


def test_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/w.db"
    assert "not there yet" in _database(url).note
    assert not list(tmp_path.iterdir())
    open_database(url).dispose()
    assert f"answers, ledger version {HEAD}" in _database(url).note


def test_the_command_says_so(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For projects that do not say where their database is, the environment's."""
    monkeypatch.setenv(DATABASE_URL, postgres_url)
    cli.main(["doctor", "--json"])
    assert f'"value": "{postgres_url}"' in capsys.readouterr().out
