"""Checkpoints on PostgreSQL: values kept apart, the server's restarts, other processes."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.contracts.test_checkpoint_disk_use import fill
from tests.postgres_server import PostgresServer
from wtb_prefect.errors import CheckpointError
from wtb_prefect.infrastructure.checkpoints import postgres_rows, postgres_store
from wtb_prefect.infrastructure.checkpoints.langgraph_store import config_for
from wtb_prefect.infrastructure.checkpoints.postgres_store import PostgresCheckpointStore
from wtb_prefect.infrastructure.checkpoints.recording_saver import RecordingSaver


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresCheckpointStore]:
    made = PostgresCheckpointStore(postgres_url)
    yield made
    made.close()


def ask(url: str, query: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def blobs(url: str) -> dict[str, int]:
    """How many values each thread has that are kept apart."""
    return dict(ask(url, "SELECT thread_id, count(*) FROM checkpoint_blobs GROUP BY 1"))


def test_values_go_with_the_checkpoints_that_name_them(
    store: PostgresCheckpointStore, postgres_url: str
) -> None:
    """Whatever removes these; and a copy has no others."""
    first, second, third = fill(store, "t", 3)
    fill(store, "other", 2)
    store.copy("t", second, "copy")
    assert blobs(postgres_url) == {"t": 3, "copy": 2, "other": 2}
    store.rewind("t", second, ["task1"])
    assert blobs(postgres_url)["t"] == 2
    store.prune({"t": [second], "copy": [third]})
    assert blobs(postgres_url) == {"t": 1, "copy": 1, "other": 2}
    assert store.load("t", second).channel_values == {"text": ["x"]}
    assert store.load("copy", third).channel_values == {"text": ["x"]}
    store.delete_many(["t", "copy"])
    assert blobs(postgres_url) == {"other": 2}
    assert not store.exists("t", first)


def test_a_restart_of_the_server_costs_one_call(
    store: PostgresCheckpointStore, postgres: PostgresServer
) -> None:
    """Whichever it is: it says so, and the next one works."""
    (head,) = fill(store, "t", 1)
    saver = RecordingSaver(store.saver)
    config = config_for("t", head)
    acts: list[Callable[[], Any]] = [
        lambda: store.fork("t", head, "u"),
        lambda: store.rewind("t", head, ["task0"]),
        lambda: store.delete_many(["nobody"]),
        lambda: asyncio.run(saver.aput_writes(config, [("text", ["x"])], "task0", "")),
    ]
    for act in acts:
        postgres.restart()
        with pytest.raises(CheckpointError) as caught:
            act()
        assert "\n" not in str(caught.value)
        act()
    assert [one.checkpoint_id for one in store.history("u")] == [head]


def test_a_server_that_is_down_is_told_each_time(
    store: PostgresCheckpointStore, postgres: PostgresServer
) -> None:
    """Neither hangs nor keeps a broken connection."""
    fill(store, "t", 1)
    postgres.stop()
    try:
        for _ in range(3):
            with pytest.raises(CheckpointError):
                store.latest("t")
    finally:
        postgres.start()
    assert store.latest("t") is not None


def test_stores_that_set_up_at_once_wait_for_each_other(
    new_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangGraph makes indexes in a way that fails beside another one doing the same."""
    setups: list[float] = []
    real = postgres_store.ReconnectingSaver.setup

    def slow(saver: postgres_store.ReconnectingSaver) -> None:
        setups.append(time.monotonic())
        time.sleep(0.3)
        real(saver)

    monkeypatch.setattr(postgres_store.ReconnectingSaver, "setup", slow)
    stores: list[PostgresCheckpointStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(PostgresCheckpointStore(new_postgres_url)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(stores), len(setups)) == (3, 1)
    for number, store in enumerate(stores):
        fill(store, f"t{number}", 1)
        store.close()


def test_tables_of_a_newer_version_are_refused(postgres: PostgresServer) -> None:
    with postgres.new_database() as url:
        PostgresCheckpointStore(url).close()
        ask(url, "INSERT INTO checkpoint_migrations VALUES (9999) RETURNING v")
        with pytest.raises(CheckpointError, match=r"version 9999.*use the newer"):
            PostgresCheckpointStore(url)


def test_space_comes_back(store: PostgresCheckpointStore) -> None:
    """What is free is told, and given back when the tables are written anew."""
    big = random.Random(1).randbytes(100_000).hex()
    fill(store, "gone", 40, big)
    fill(store, "kept", 1, big)  # at the end of its table: only writing anew moves it
    full = store.space()
    assert full.on_disk > 20 * len(big)
    assert full.free < full.on_disk / 10
    store.delete_many(["gone"])
    assert store.space().free > full.on_disk / 2
    assert store.compact() is None
    after = store.space()
    assert after.on_disk < full.on_disk / 4
    assert len(store.history("kept")) == 1


def test_tables_in_use_are_not_compacted_and_say_so(
    store: PostgresCheckpointStore, postgres_url: str
) -> None:
    """Nobody waits long, and the next statement has its usual patience."""
    fill(store, "t", 1)
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT * FROM checkpoints")
        assert "lock timeout" in (postgres_rows.compact(store.saver.conn, busy_ms=50) or "")
    assert store.compact() is None
    assert store.saver.conn.execute("SHOW lock_timeout").fetchall() == [{"lock_timeout": "0"}]
