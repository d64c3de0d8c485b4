"""How values become columns: JSON as canonical text, times as text of fixed width.

Fixed-width UTC text sorts as the times do, keeps microseconds, and reads the same in every
database and in a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from wtb_prefect.domain.execution import NodeFailure
from wtb_prefect.errors import LedgerError

# json.dumps builds an encoder per call when given options: 5 us each, and a step writes six.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
_encode_ascii = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def json_text(value: object) -> str:
    """The canonical JSON text of a value.

    Raises:
        LedgerError: the value is not made of JSON types.
    """
    try:
        text = _encode(value)
    except (TypeError, ValueError) as exc:
        raise LedgerError(f"the ledger keeps JSON values only: {exc}") from exc
    return text if _encodable(text) else _encode_ascii(value)


def json_object(value: Mapping[str, Any]) -> str:
    """The JSON text of a mapping of any class."""
    return json_text(dict(value)) if value else "{}"


def json_list(values: Iterable[object]) -> str:
    """The JSON text of a sequence."""
    return json_text(list(values)) if values else "[]"


def json_value(text: str) -> Any:
    """What the JSON text says."""
    return json.loads(text)


def names(text: str) -> tuple[str, ...]:
    """A sequence of names, from its JSON text."""
    return () if text == "[]" else tuple(json.loads(text))


def failure_text(failure: NodeFailure | None) -> str | None:
    """A failure as JSON text."""
    if failure is None:
        return None
    return json_text(
        {
            "node": failure.node,
            "type": failure.type,
            "message": failure.message,
            "traceback": failure.traceback,
        }
    )


def failure(text: str | None) -> NodeFailure | None:
    """A failure, from its JSON text."""
    return None if text is None else NodeFailure(**json.loads(text))


def time_text(time: datetime) -> str:
    """A time in UTC as text.

    Raises:
        LedgerError: the time has no time zone.
    """
    if time.tzinfo is not UTC:
        if time.tzinfo is None:
            raise LedgerError(f"the ledger keeps times with a time zone only, not {time!r}")
        time = time.astimezone(UTC)
    return time.isoformat(timespec="microseconds")


def time_text_or_none(time: datetime | None) -> str | None:
    """The same for a time that may be missing."""
    return None if time is None else time_text(time)


def time_value(text: str) -> datetime:
    """The time of a text."""
    return datetime.fromisoformat(text)


def time_value_or_none(text: str | None) -> datetime | None:
    """The same for a time that may be missing."""
    return None if text is None else datetime.fromisoformat(text)


def prose(text: str | None) -> str | None:
    """Text for people, with what no database can hold written as escapes.

    Messages of exceptions quote file names and model answers, which may hold lone surrogates or
    NUL: they must not stop the ledger from recording the failure.
    """
    if text is None or (_encodable(text) and "\0" not in text):
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
