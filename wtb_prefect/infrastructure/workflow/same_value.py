"""Whether a reloaded value is the value that was saved, types and all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.types import Send


def difference(live: Any, reloaded: Any, where: str) -> str | None:
    """Where two values differ, in words; None if they are the same.

    Equality alone is not enough: a tuple that comes back as a list, or a `Counter` that comes back
    as a dict, is equal to nothing a node could tell apart until one does.
    """
    if type(live) is not type(reloaded):
        return f"{where} is a {_name(live)} and comes back as a {_name(reloaded)}"
    if isinstance(live, Mapping):
        return _mapping(live, reloaded, where)
    if isinstance(live, (list, tuple)):
        return _sequence(live, reloaded, where)
    if isinstance(live, Send):
        return _attributes(live, reloaded, ["node", "arg"], where)
    if dataclasses.is_dataclass(live):
        names = [field.name for field in dataclasses.fields(live)]
        return _attributes(live, reloaded, names, where)
    fields = getattr(type(live), "model_fields", None)
    if fields is not None:
        return _attributes(live, reloaded, list(fields), where)
    try:
        return None if _equal(live, reloaded) else f"{where} comes back with another value"
    except Exception as exc:  # noqa: BLE001 - __eq__ is user code; arrays answer in their own way
        return f"{where} ({_name(live)}) cannot be compared with its reloaded copy: {exc}"


_PLAIN = frozenset((str, int, float, bool, bytes, type(None)))


def comes_back(value: Any, serializer: SerializerProtocol) -> bool:
    """Whether a serialised value comes back as it was, types and all.

    Plain JSON values do, and seeing that takes a tenth of the time of trying; all others are tried.
    """
    if _is_plain(value):
        return True
    return difference(value, serializer.loads_typed(serializer.dumps_typed(value)), "it") is None


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is list:
        return all(map(_is_plain, value))
    if kind is dict:
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    return False


def without_ids(value: Any) -> Any:
    """A value whose messages have no ids: LangGraph draws them at random for those without one."""
    if isinstance(value, BaseMessage):
        return value.model_copy(update={"id": None})
    if type(value) is dict:
        return {key: without_ids(part) for key, part in value.items()}
    if type(value) is list:
        return [without_ids(part) for part in value]
    return value


def _name(value: Any) -> str:
    return type(value).__name__


def _mapping(live: Mapping[Any, Any], reloaded: Mapping[Any, Any], where: str) -> str | None:
    if [(type(key), key) for key in live] != [(type(key), key) for key in reloaded]:
        return f"{where} comes back with other keys"
    return _first(difference(live[key], reloaded[key], f"{where}[{key!r}]") for key in live)


def _sequence(live: Sequence[Any], reloaded: Sequence[Any], where: str) -> str | None:
    if len(live) != len(reloaded):
        return f"{where} comes back with {len(reloaded)} items instead of {len(live)}"
    pairs = enumerate(zip(live, reloaded, strict=True))
    return _first(difference(old, new, f"{where}[{i}]") for i, (old, new) in pairs)


def _attributes(live: Any, reloaded: Any, names: list[str], where: str) -> str | None:
    pairs = ((name, getattr(live, name, None), getattr(reloaded, name, None)) for name in names)
    return _first(difference(old, new, f"{where}.{name}") for name, old, new in pairs)


def _first(found: Any) -> str | None:
    return next((text for text in found if text is not None), None)


def _equal(live: Any, reloaded: Any) -> bool:
    if live is reloaded:
        return True
    # Arrays answer == with an array: their bytes, type and shape decide, also where they hold NaN.
    raw = getattr(live, "tobytes", None)
    if raw is not None:
        kind = (live.dtype, live.shape) == (reloaded.dtype, reloaded.shape)
        return bool(kind and raw() == reloaded.tobytes())
    return bool(live == reloaded) or bool(live != live and reloaded != reloaded)  # noqa: PLR0124 - NaN
