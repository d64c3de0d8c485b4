"""What is tried again, and when."""

from __future__ import annotations

import errno
import socket
import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from wtb_prefect.application.retry_policy import (
    ASKED_CAP_SECONDS,
    Backoff,
    Transience,
    transience_of,
)
from wtb_prefect.errors import InvalidInputError


def like(module: str, name: str, base: type[Exception] = Exception) -> type[Exception]:
    """A class as a client library has it, and a subclass of it, as applications make them."""
    own = type(name, (base,), {"__module__": module})
    return type("Mine", (own,), {"__module__": "app"})


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1/")
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, headers=names, request=request)
    return httpx.HTTPStatusError(f"{status}", request=request, response=response)


class WithCode(Exception):
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING = [
    TimeoutError("slow"),
    TimeoutError(),
    ConnectionResetError("peer"),
    ConnectionRefusedError(),
    OSError(errno.ENETUNREACH, "no network"),
    socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
    urllib.error.URLError(ConnectionRefusedError()),
    urllib.error.HTTPError("http://127.0.0.1/", 503, "", Message(), None),
    httpx.ReadTimeout("slow"),
    httpx.ConnectError("refused"),
    httpx.RemoteProtocolError("gone"),
    *[answered(status) for status in (408, 425, 429, 500, 502, 503, 504, 529)],
    like("openai", "APIConnectionError")(),
    like("anthropic._exceptions", "RateLimitError")(),
    like("requests.exceptions", "Timeout", OSError)(),
    like("langgraph.errors", "NodeTimeoutError")(),
    WithCode(status=503),
    WithCode(code=429),
    WithCode(response={"ResponseMetadata": {"HTTPStatusCode": 429}}),
    caused(RuntimeError("the model failed"), httpx.ReadTimeout("slow")),
    ExceptionGroup("both", [TimeoutError(), ConnectionResetError()]),
]
LASTING = [
    ValueError("bad"),
    KeyError("k"),
    RuntimeError("why"),
    FileNotFoundError(errno.ENOENT, "no file"),
    PermissionError(errno.EACCES, "no"),
    socket.gaierror(socket.EAI_NONAME, "no such host"),
    InvalidInputError("asked wrong"),
    *[answered(status) for status in (400, 401, 404, 409, 501)],
    like("app.errors", "RateLimitError")(),
    WithCode(status_code=429, code="insufficient_quota"),
    WithCode(code=3),
    caused(ValueError("not JSON"), TimeoutError()),
    ExceptionGroup("one of them", [TimeoutError(), ValueError()]),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_by_itself_is_transient(error: Exception) -> None:
    assert transience_of(error, ()).transient


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_stays_is_not(error: Exception) -> None:
    assert transience_of(error, ()) == Transience(False)


def test_a_project_adds_classes_of_its_own() -> None:
    class Busy(ValueError):
        retry_after = 7

    assert transience_of(Busy(), (Busy,)) == Transience(True, 7.0)
    assert not transience_of(ValueError(), (Busy,)).transient


def test_grpc_codes_are_called() -> None:
    class RpcError(Exception):
        __module__ = "grpc"

        def __init__(self, name: str) -> None:
            self._name = name

        def code(self) -> Any:
            return type("StatusCode", (), {"name": self._name})

    assert transience_of(RpcError("UNAVAILABLE"), ()).transient
    assert not transience_of(RpcError("INVALID_ARGUMENT"), ()).transient


def test_what_a_server_asks_for_is_heard() -> None:
    assert transience_of(answered(429, retry_after="12"), ()).retry_after == 12.0
    assert transience_of(answered(429, retry_after="soon"), ()).retry_after is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    asked = transience_of(answered(503, retry_after=later), ()).retry_after
    assert asked is not None
    assert 50 < asked <= 60


def test_the_wait_grows_is_spread_and_has_a_cap() -> None:
    whole, half = Backoff(chance=lambda: 1.0), Backoff(chance=lambda: 0.5)
    assert [whole.seconds(n, None) for n in (1, 2, 3, 7, 100)] == [0.5, 1.0, 2.0, 30.0, 30.0]
    assert half.seconds(2, None) == 0.5
    assert half.seconds(1, 12.0) == 12.25
    assert half.seconds(1, 1e9) == ASKED_CAP_SECONDS + 0.25
    assert half.seconds(1, -5.0) == 0.25
