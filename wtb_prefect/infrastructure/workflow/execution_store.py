"""A LangGraph store of one execution: forks begin with a copy of what their parent's held."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.store.base import Item, Op, PutOp, Result
from langgraph.store.memory import InMemoryStore


class ExecutionStore(InMemoryStore):
    """An in-memory store whose whole content can be kept as bytes and taken up again.

    Args:
        serializer: of checkpoints: what a state may hold, a store may hold.
        content: what an earlier one's `changed` gave; None for an empty store.
    """

    def __init__(self, serializer: SerializerProtocol, content: bytes | None = None) -> None:
        super().__init__()
        self._serializer = serializer
        self._is_changed = False
        if content is not None:
            for row in serializer.loads_typed(("msgpack", content)):
                item = _item(row)
                self._data[item.namespace][item.key] = item

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As LangGraph's, and notes that something was put."""
        return super().batch(self._noted(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As LangGraph's, and notes that something was put."""
        return await super().abatch(self._noted(ops))

    def changed(self) -> bytes | None:
        """The whole content; None if nothing was put since this was last asked."""
        if not self._is_changed:
            return None
        self._is_changed = False
        return content_of(self, self._serializer)

    def _noted(self, ops: Iterable[Op]) -> list[Op]:
        noted = list(ops)
        self._is_changed |= any(isinstance(op, PutOp) for op in noted)
        return noted


def is_copyable(store: object) -> bool:
    """Whether executions can have copies of a store of their own: in memory, without vectors (a
    copy would have to embed every item again)."""
    return type(store) is InMemoryStore and store.index_config is None


def content_of(store: InMemoryStore, serializer: SerializerProtocol) -> bytes:
    """All items of a store as bytes; the same items give the same bytes."""
    rows = [
        [list(item.namespace), item.key, item.value, *_times(item)]
        for _, items in sorted(store._data.items())
        for _, item in sorted(items.items())
    ]
    return serializer.dumps_typed(rows)[1]


def _times(item: Item) -> list[str]:
    return [item.created_at.isoformat(), item.updated_at.isoformat()]


def _item(row: list[Any]) -> Item:
    namespace, key, value, created_at, updated_at = row
    return Item(
        value=value,
        key=key,
        namespace=tuple(namespace),
        created_at=datetime.fromisoformat(created_at),
        updated_at=datetime.fromisoformat(updated_at),
    )
