"""Servers of the tests' own: Prefect and Ray for a module, 10 s to start each; PostgreSQL and an
object store once."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.object_store import BUCKET, ObjectStore, object_store
from tests.postgres_server import PostgresServer, binaries, postgres_server

# A shell's background job ignores SIGINT, and so would everything that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Prefect takes seconds to import: only tests that start it pay for that.
if TYPE_CHECKING:
    from wtb_prefect.api.server import PrefectServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, started by the first test that wants one."""
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    with postgres_server(programs) as running:
        yield running


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database with the tables of this version."""
    with postgres.empty_database() as url:
        yield url


@pytest.fixture
def new_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A database without any tables."""
    with postgres.new_database() as url:
        yield url


@pytest.fixture(scope="session")
def running_object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server, started by the first test that wants one."""
    with object_store(tmp_path_factory.mktemp("object-store")) as running:
        yield running


@pytest.fixture
def s3_url(running_object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in it, for this process and those it starts."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # one of another test may know another server
    for name, value in running_object_store.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4()}"


@pytest.fixture(scope="module")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its database. A module with files of its own makes them first, in a
    fixture of this name: workers import what is on the search path when Ray starts."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module")
def server(server_home: Path) -> Iterator[PrefectServer]:
    """A Prefect server with an empty database."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from wtb_prefect.api.server import prefect_server

    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        prefect_server(server_home) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def ray(server: PrefectServer) -> Iterator[Any]:
    """A Ray that outlives the flows, as a long-lived cluster does; gives its module."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner

    with (
        temporary_settings({PREFECT_API_URL: server.url}),
        SegmentRayTaskRunner(num_cpus=2) as runner,
    ):
        yield runner.start()
