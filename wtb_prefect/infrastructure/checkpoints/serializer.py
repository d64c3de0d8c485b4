"""The one serializer of checkpoints and cases: msgpack with an allow-list, never pickle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from wtb_prefect.errors import StateError


def make_serializer(allowed: Iterable[tuple[str, ...]]) -> JsonPlusSerializer:
    """A serializer that rebuilds LangGraph's safe types and the given (module, class) names only.

    LangGraph's default rebuilds any importable name, which lets whoever can write to the
    checkpoint file run code (CVE-2026-28277); an explicit list closes that.
    """
    return JsonPlusSerializer(allowed_msgpack_modules=sorted(allowed) or None)


def check_checkpointable(serializer: JsonPlusSerializer, key: str, value: Any) -> None:
    """Raises `StateError` if a value would not come back from a checkpoint.

    A class outside the allow-list comes back as plain data; that is found by its type.
    """
    try:
        back = serializer.loads_typed(serializer.dumps_typed(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise StateError(
            f"state key {key!r} ({type(value).__name__}) cannot be checkpointed: {exc}"
        ) from exc
    if not _plain(value) and type(back) is not type(value):
        raise StateError(
            f"state key {key!r} holds a {type(value).__module__}.{type(value).__qualname__}, which "
            "is not on the allow-list of checkpointable classes; "
            "add it: WorkflowProject(allowed_types=[...])"
        )


def _plain(value: Any) -> bool:
    # Tuples and str or dict subclasses come back as list, str and dict; LangGraph users live with
    # that, and the probe before each fork finds where it would matter.
    return isinstance(value, (str, int, float, bool, bytes, list, tuple, dict, set, type(None)))
