"""Cases through the serializer of checkpoints: what a state may hold, a case may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from wtb_prefect.infrastructure.checkpoints.serializer import check_checkpointable


class MsgpackCaseCodec:
    """See `CaseCodec`."""

    def __init__(self, serializer: JsonPlusSerializer) -> None:
        self._serializer = serializer

    def dump(self, value: Mapping[str, Any]) -> tuple[str, bytes]:
        """See `CaseCodec.dump`."""
        for key, part in value.items():
            check_checkpointable(self._serializer, key, part)
        return self._serializer.dumps_typed(dict(value))

    def load(self, encoding: str, payload: bytes) -> dict[str, Any]:
        """See `CaseCodec.load`."""
        value = self._serializer.loads_typed((encoding, payload))
        assert isinstance(value, dict)
        return value
