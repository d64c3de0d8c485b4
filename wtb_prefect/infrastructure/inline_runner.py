"""The runner without Prefect and Ray: everything in this process, many stretches at a time."""

from __future__ import annotations

import asyncio

from wtb_prefect.application.run_chunk import first_failure, run_chunk
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.domain.interfaces.segment_runner import Chunk, ChunkResult


class InlineRunner:
    """One slot; a chunk's stretches run concurrently in the event loop, sync nodes in threads."""

    slots = 1

    def __init__(self, scope: BatchScope, session: Session, parallel: int) -> None:
        self._scope = scope
        self._session = session
        self._parallel = parallel
        self._task: asyncio.Task[ChunkResult] | None = None

    @property
    def in_flight(self) -> int:
        """See `SegmentRunner.in_flight`."""
        return 0 if self._task is None else 1

    def submit(self, chunk: Chunk) -> None:
        """See `SegmentRunner.submit`."""
        self._task = asyncio.create_task(
            run_chunk(chunk, self._scope, self._session, self._parallel)
        )

    async def next_result(self) -> ChunkResult:
        """See `SegmentRunner.next_result`."""
        assert self._task is not None
        try:
            return await self._task
        except BaseExceptionGroup as group:
            # The stretches of a chunk fail as a group; the first failure is the one to report.
            raise first_failure(group) from group
        finally:
            self._task = None
