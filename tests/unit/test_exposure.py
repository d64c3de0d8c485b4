"""Servers that anybody can use are told of; loopback and authenticated ones are not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wtb_prefect.commands import exposure
from wtb_prefect.commands.exposure import open_to_others

NAMES = (
    *("PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_URL"),
    *("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_DASHBOARD_HOST"),
)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=[200, 401])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A server that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not in the output of tests."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever).start()
    yield f"http://127.0.0.1:{running.server_port}/api", request.param
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, []),
        ({"PREFECT_SERVER_API_HOST": "127.0.0.1", "RAY_DASHBOARD_HOST": "localhost"}, []),
        ({"PREFECT_SERVER_API_HOST": "0.0.0.0"}, ["PREFECT_SERVER_API_HOST"]),
        ({"PREFECT_SERVER_API_HOST": "::"}, ["PREFECT_SERVER_API_HOST"]),
        (
            {"PREFECT_SERVER_API_HOST": "0.0.0.0", "PREFECT_SERVER_API_AUTH_STRING": "me:secret"},
            [],
        ),
        ({"RAY_ADDRESS": "ray://10.1.2.3:10001"}, ["Ray authentication"]),
        ({"RAY_ADDRESS": "head.cluster:6379"}, ["Ray authentication"]),
        ({"RAY_ADDRESS": "10.1.2.3:6379", "RAY_AUTH_MODE": "token"}, []),
        ({"RAY_ADDRESS": "auto"}, []),
        ({"RAY_ADDRESS": "127.0.0.1:6379"}, []),
        ({"RAY_DASHBOARD_HOST": "0.0.0.0"}, ["RAY_DASHBOARD_HOST"]),
    ],
)
def test_what_anybody_can_reach_is_told(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: list[str]
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = list(open_to_others())
    assert [check.name for check in found] == told
    assert all(check.note for check in found)


def test_a_server_elsewhere_that_lets_anybody_in(
    monkeypatch: pytest.MonkeyPatch, server: tuple[str, int]
) -> None:
    url, status = server
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert list(open_to_others()) == []  # loopback
    monkeypatch.setattr(exposure, "_is_here", lambda _: False)
    names = [check.name for check in open_to_others()]
    assert ("Prefect authentication" in names) is (status == 200)
