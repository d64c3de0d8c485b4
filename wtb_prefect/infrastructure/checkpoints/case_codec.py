"""Cases through the serializer of checkpoints: what a state may hold, a case may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from wtb_prefect.errors import StateError
from wtb_prefect.infrastructure.checkpoints.serializer import check_checkpointable


class MsgpackCaseCodec:
    """See `CaseCodec`."""

    def __init__(self, serializer: JsonPlusSerializer) -> None:
        self._serializer = serializer

    def check(self, value: Mapping[str, Any]) -> None:
        """See `CaseCodec.check`."""
        for key, part in value.items():
            if part is not None and part != {}:
                check_checkpointable(self._serializer, key, part)

    def dump(self, value: Mapping[str, Any]) -> tuple[str, bytes]:
        """See `CaseCodec.dump`."""
        try:
            return self._serializer.dumps_typed(dict(value))
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise StateError(f"a case holds a value that cannot be stored: {exc}") from exc

    def load(self, encoding: str, payload: bytes) -> dict[str, Any]:
        """See `CaseCodec.load`."""
        value = self._serializer.loads_typed((encoding, payload))
        assert isinstance(value, dict)
        return value
