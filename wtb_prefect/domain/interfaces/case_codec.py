"""Cases as bytes in the ledger, so that workers read them by reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class CaseCodec(Protocol):
    """Any Python state LangGraph can checkpoint, to bytes and back."""

    def check(self, value: Mapping[str, Any]) -> None:
        """Raises `StateError` naming the key whose value would not come back as it is."""
        ...

    def dump(self, value: Mapping[str, Any]) -> tuple[str, bytes]:
        """(encoding, bytes). Raises `StateError` for what cannot be stored."""
        ...

    def load(self, encoding: str, payload: bytes) -> dict[str, Any]: ...
