"""The one serializer of checkpoints and cases: msgpack with an allow-list, never pickle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
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

    A class outside the allow-list comes back as plain data, wherever in the value it stands.
    """
    try:
        back = serializer.loads_typed(serializer.dumps_typed(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise StateError(
            f"state key {key!r} ({type(value).__name__}) cannot be checkpointed: {exc}"
        ) from exc
    lost = _lost_class(value, back)
    if lost is not None:
        raise StateError(
            f"state key {key!r} holds a {lost.__module__}.{lost.__qualname__}, which "
            "is not on the allow-list of checkpointable classes; "
            "add it: WorkflowProject(allowed_types=[...])"
        )


def _lost_class(value: Any, back: Any) -> type | None:
    """The class of the first object that came back as something else.

    Tuples and str or dict subclasses come back as list, str and dict; LangGraph users live with
    that, and the probe before each fork finds where it would matter.
    """
    if isinstance(value, Mapping) and isinstance(back, Mapping):
        pairs = [(part, back.get(key)) for key, part in value.items()]
    elif isinstance(value, (list, tuple)) and isinstance(back, (list, tuple)):
        pairs = list(zip(value, back, strict=False))
    elif isinstance(value, (str, int, float, bool, bytes, set, type(None))):
        return None
    elif type(back) is not type(value):
        return type(value)
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        pairs = [(getattr(value, name), getattr(back, name, None)) for name in names]
    else:
        return None
    return next((lost for old, new in pairs if (lost := _lost_class(old, new))), None)
