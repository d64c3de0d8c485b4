"""Which errors pass by themselves, and how long to wait before the next attempt.

Errors are told by their attributes and by the names of their classes, so that no client library
is imported to recognise its errors.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from wtb_prefect.errors import WTBError

BASE_SECONDS = 0.5
CAP_SECONDS = 30.0
ASKED_CAP_SECONDS = 120.0
"""The longest wait a server may ask for; with more, the attempt comes sooner than it wants."""

# 409 is left out: to most servers it is a conflict that stays. 501 and 505 stay, too.
_STATUSES = frozenset((408, 425, 429, *range(500, 600))) - {501, 505}
_GRPC_CODES = frozenset(("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"))
_ERRNOS = frozenset((errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTUNREACH))

_NAMES: Mapping[str, frozenset[str]] = {
    "aiohttp": frozenset(("ClientConnectionError", "ClientPayloadError")),
    "anthropic": frozenset(("APIConnectionError", "RateLimitError", "InternalServerError")),
    "botocore": frozenset(
        ("ConnectionError", "HTTPClientError", "ConnectionClosedError", "ReadTimeoutError")
    ),
    "httpcore": frozenset(("TimeoutException", "NetworkError", "RemoteProtocolError")),
    "httpx": frozenset(("TimeoutException", "NetworkError", "RemoteProtocolError")),
    "langgraph": frozenset(("NodeTimeoutError",)),
    "openai": frozenset(("APIConnectionError", "RateLimitError", "InternalServerError")),
    "requests": frozenset(("ConnectionError", "Timeout", "ChunkedEncodingError")),
    "urllib3": frozenset(("TimeoutError", "ProtocolError", "NewConnectionError")),
    "websockets": frozenset(("ConnectionClosedError",)),
}
"""Top-level module -> names of classes; their subclasses count too."""

# They say that the code is wrong, whatever they were raised from.
_PROGRAMMING = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Transience:
    """Whether an error passes by itself; `retry_after` is what a server asked for, in seconds."""

    transient: bool
    retry_after: float | None = None


LASTING = Transience(transient=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How attempts are spaced out; randomness and sleep are arguments, so that no test waits."""

    base: float = BASE_SECONDS
    cap: float = CAP_SECONDS
    chance: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def seconds(self, retry: int, retry_after: float | None) -> float:
        """The wait before the `retry`-th retry (from 1).

        Exponential with full jitter: cells that failed together do not come back together. What a
        server asks for is waited at least.
        """
        jitter = self.chance() * min(self.cap, self.base * 2.0 ** (retry - 1))
        return jitter + min(max(retry_after or 0.0, 0.0), ASKED_CAP_SECONDS)


def transience_of(error: BaseException, declared: tuple[type[BaseException], ...]) -> Transience:
    """Judges an error: by the classes a project declared, then by the table.

    An error that says nothing itself is judged by what it was raised from.
    """
    if isinstance(error, BaseExceptionGroup):
        return _all_of(error, declared)
    if declared and isinstance(error, declared):
        return Transience(True, _retry_after(error))
    if isinstance(error, WTBError):
        return LASTING
    own = _own(error)
    if own is not None:
        return Transience(own, _retry_after(error) if own else None)
    origin = error.__cause__ or _reason(error)
    if origin is None or isinstance(error, _PROGRAMMING):
        return LASTING
    return transience_of(origin, declared)


def _all_of(
    group: BaseExceptionGroup[Any], declared: tuple[type[BaseException], ...]
) -> Transience:
    found = [transience_of(error, declared) for error in group.exceptions]
    if not all(one.transient for one in found):
        return LASTING
    return Transience(True, max((one.retry_after or 0.0 for one in found), default=0.0) or None)


def _own(error: BaseException) -> bool | None:
    """What an error says by itself; None if it says nothing."""
    status = _status(error)
    if status is not None:
        # Money that ran out does not come back by waiting.
        return status in _STATUSES and getattr(error, "code", None) != "insufficient_quota"
    if (grpc := _grpc_code(error)) is not None:
        return grpc in _GRPC_CODES
    if isinstance(error, (TimeoutError, ConnectionError)) or _is_named(error):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _ERRNOS
    return None


def _is_named(error: BaseException) -> bool:
    return any(
        cls.__name__ in _NAMES.get(cls.__module__.partition(".")[0], ())
        for cls in type(error).__mro__
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status, wherever a client keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        return _number(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    places = (
        (error, "status_code"),
        (response, "status_code"),
        (response, "status"),
        (error, "status"),
        (error, "code"),
    )
    numbers = (_number(getattr(where, name, None)) for where, name in places)
    return next((number for number in numbers if number is not None), None)


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and 100 <= value < 600 else None


def _grpc_code(error: BaseException) -> str | None:
    code = getattr(error, "code", None)
    if not callable(code) or not any(c.__module__.startswith("grpc") for c in type(error).__mro__):
        return None
    name = getattr(code(), "name", None)
    return name if isinstance(name, str) else None


def _reason(error: BaseException) -> BaseException | None:
    """What urllib wraps without a cause."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, BaseException) else None


def _retry_after(error: BaseException) -> float | None:
    own = getattr(error, "retry_after", None)
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        return float(own)
    for where in (getattr(error, "response", None), error):
        headers = getattr(where, "headers", None)
        if isinstance(headers, Mapping):
            return _header_seconds(headers)
    return None


def _header_seconds(headers: Mapping[Any, Any]) -> float | None:
    """Seconds or an HTTP date; header names are compared without regard to case."""
    text = next((v for k, v in headers.items() if str(k).lower() == "retry-after"), None)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(text)).timestamp() - time.time())
    except ValueError:
        return None
