"""Running the body of a node in another process."""

from __future__ import annotations

from typing import Protocol

from wtb_prefect.domain.remote_node import RemoteNode


class RemoteCalls(Protocol):
    """Where bodies of remote nodes run. Bytes go there and come back: no object is shared."""

    async def call(self, node: RemoteNode, variant: str, payload: bytes) -> bytes:
        """Runs the body of a variant with a packed call; gives the packed answer.

        Raises `InfrastructureError` if the process is lost; Ray never runs a body again by itself.
        """
        ...
