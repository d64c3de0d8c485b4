"""Batches whose ledger and checkpoints are in PostgreSQL."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.graph import START, StateGraph
from test_resume import PROJECT, TREE, bodies, ended, outcome, start, written

from tests.postgres_server import TEMPLATE, PostgresServer, binaries
from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.bootstrap.garbage import open_garbage
from wtb_prefect.errors import InfrastructureError
from wtb_prefect.infrastructure.database import address
from wtb_prefect.infrastructure.database.address import DATABASE_URL

MATRIX = '{"x": "*", "y": "*", "c": "*"}'


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the request gives on SQLite."""
    return outcome(written(tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture
def url(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new database that projects of this process, and of those it starts, find by themselves."""
    with postgres.new_database(f"TEMPLATE {TEMPLATE}") as found:
        monkeypatch.setenv(DATABASE_URL, found)
        yield found


def on_postgres(folder: Path, matrix: str = MATRIX) -> Path:
    """A folder with a project that says nothing of its database."""
    folder.mkdir(exist_ok=True)
    text = PROJECT.replace("MATRIX", matrix).replace('db_path=HERE / "w.db", ', "")
    (folder / "project.py").write_text(text)
    return folder


def test_shared_equals_unshared_and_sqlite(
    tmp_path: Path, url: str, undisturbed: dict[str, Any]
) -> None:
    """Same states and files, as many bodies; and no database is left in any folder."""
    folder = on_postgres(tmp_path / "shared")
    assert outcome(folder) == undisturbed
    assert len(bodies(folder)) == TREE
    alone = on_postgres(tmp_path / "alone")
    loaded = runpy.run_path(str(alone / "project.py"))
    with TestBench(loaded["project"]) as bench:
        result = bench.batch(
            **loaded["REQUEST"], runner="inline", share_prefixes=False, batch_id="alone"
        )
        assert result.node_executions == 8 * 7
        found = {cell.combination: sorted(cell.state["log"]) for cell in result.cells}
    assert found == {name: log for name, (_, log, _) in undisturbed.items()}
    assert not list(tmp_path.rglob("*.db"))


def test_killed_it_goes_on_from_its_last_record(
    tmp_path: Path, url: str, undisturbed: dict[str, Any]
) -> None:
    """In a fork whose siblings are recorded; one body is repeated."""
    folder = on_postgres(tmp_path)
    assert ended(start(folder, KILL_AT="y:v", PARALLEL="1")) == -signal.SIGKILL
    assert outcome(folder) == undisturbed
    assert len(bodies(folder)) == TREE + 1


def test_two_processes_write_one_ledger(
    tmp_path: Path, url: str, undisturbed: dict[str, Any]
) -> None:
    """Two batches of one project at the same time, each with cells of its own."""
    halves = '[{"x": "v", "y": y, "c": c} for y in "vo" for c in "vo"]'.replace(
        '"vo"', '("v", "original")'
    )
    other = halves.replace('"x": "v"', '"x": "original"')
    folder = on_postgres(tmp_path, f'({halves}) if os.environ.get("HALF") else ({other})')
    processes = [start(folder, HALF=half, SLOW="1") for half in ("", "1")]
    assert [ended(process) for process in processes] == [0, 0]
    first = outcome(folder)
    os.environ["HALF"] = "1"
    try:
        assert {**first, **outcome(folder)} == undisturbed
    finally:
        del os.environ["HALF"]


@pytest.mark.parametrize("at", ["b:original", "y:v", "c:v"])
def test_after_a_restart_of_the_server_the_same_command_ends_right(
    tmp_path: Path,
    url: str,
    undisturbed: dict[str, Any],
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    """The batch says that its database failed, not that a node did; nothing recorded is lost."""
    folder = on_postgres(tmp_path)
    text = (folder / "project.py").read_text()
    waits = 'while not (HERE / "go").exists(): time.sleep(0.01)'
    (folder / "project.py").write_text(text.replace("os.kill(os.getpid(), 9)", waits))
    monkeypatch.setenv("KILL_AT", at)

    def restart() -> None:
        while not (folder / "killed").exists():
            time.sleep(0.01)
        postgres.restart()
        (folder / "go").touch()

    restarting = threading.Thread(target=restart)
    restarting.start()
    loaded = runpy.run_path(str(folder / "project.py"))
    with TestBench(loaded["project"]) as bench:
        with pytest.raises(InfrastructureError):
            bench.batch(**loaded["REQUEST"], runner="inline", max_parallel=1)
        restarting.join()
        result = bench.batch(**loaded["REQUEST"], runner="inline", max_parallel=1)
        assert {cell.status for cell in result.cells} == {"completed"}
    assert outcome(folder) == undisturbed
    assert len(bodies(folder)) <= TREE + 3  # what was in flight: three siblings at most


PASSWORD = "hidden%20word%2F12"


def test_the_password_stays_in_the_process(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the project names it or its environment does: a batch runs, a node prints it, and it
    is nowhere in what is kept or handed on."""
    monkeypatch.setattr(address, "_given", {})  # the database is another test's later on
    url = postgres_url.replace("wtb@", f"wtb:{PASSWORD}@")

    def tell(state: dict[str, Any]) -> dict[str, Any]:
        print("connecting to", url)
        raise ValueError(f"cannot connect to {url}")

    builder = StateGraph(dict)
    builder.add_node("tell", tell)
    builder.add_edge(START, "tell")
    project = WorkflowProject(
        "p", builder, database_url=url, output_dir=tmp_path / "out", workspace=None
    )
    assert project.locations.database_url == postgres_url
    with TestBench(project) as bench:
        result = bench.batch(cases=[{"id": "1", "state": {}}], runner="inline")
    (cell,) = result.cells
    assert cell.error is not None
    assert "cannot connect to" in cell.error.message
    dump = subprocess.run(
        [str(binaries() / "pg_dump"), postgres_url], capture_output=True, text=True, check=True
    ).stdout
    assert "cannot connect to" in dump
    files = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert any(postgres_url in text for text in files), "the blob store knows its ledger"
    assert any("connecting to" in text for text in files)
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("SELECT blob FROM checkpoint_writes").fetchall()
    written = b"".join(row[0] for row in rows)
    assert b"cannot connect to" in written
    assert b"hidden" not in written
    given = replace(project.locations, database_url=url)  # as a flow's parameter may be
    with open_garbage(given) as stores:
        assert list(stores.blobs.ledgers().values()) == [postgres_url]
    kept = [dump, repr(project.locations), json.dumps(project.locations.to_json()), *files]
    for text in [*kept, repr(result), cell.error.message, cell.error.traceback]:
        assert "hidden" not in text
