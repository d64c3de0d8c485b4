"""Ids made from content, so that the same request always names the same things."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import NewType

from wtb_prefect.errors import InvalidInputError

CheckpointId = NewType("CheckpointId", str)
"""A LangGraph checkpoint id (a time-ordered UUID string)."""

BlobId = NewType("BlobId", str)
"""The SHA-256 of a file's bytes, 64 lower-case hexadecimal digits."""

NAMESPACE = uuid.UUID("5f0f6c53-6a40-5d0f-9d52-6c7a0b7d2f7e")

_NAME = re.compile(r"[^\s=,|\x00-\x1f][^=,|\x00-\x1f]*")


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def stable_id(*parts: object) -> str:
    """A UUIDv5 string of JSON-able parts: equal parts give equal ids, in every process."""
    return str(uuid.uuid5(NAMESPACE, canonical_json(parts)))


def digest(*parts: object) -> str:
    """SHA-256 (hex) of JSON-able parts."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def thread_id(execution_id: str) -> str:
    """The LangGraph thread of an execution."""
    return f"wtb-{execution_id}"


def valid_name(kind: str, name: object) -> str:
    """A name that can stand in a canonical combination name.

    Raises:
        InvalidInputError: not a string, empty, too long, or with one of `=` `,` `|` or a
            control character.
    """
    if not isinstance(name, str) or len(name) > 200 or not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{kind} {name!r} is not usable as a name: 1 to 200 characters, "
            "no '=', ',', '|' or control characters, and no space at the start"
        )
    return name
