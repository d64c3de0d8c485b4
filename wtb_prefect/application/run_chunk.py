"""Running many items in one process: a bounded number at a time, depth first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from wtb_prefect.application.fail_fast import is_stopped
from wtb_prefect.application.run_segment import SegmentOutcome, run_segment
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.domain.interfaces.segment_runner import Chunk, ChunkResult, WorkItem
from wtb_prefect.errors import InfrastructureError

DEFAULT_PARALLEL = 8
"""Stretches in flight when the caller does not say: enough to wait for models on two cores."""


async def run_chunk(
    chunk: Chunk, scope: BatchScope, session: Session, parallel: int
) -> ChunkResult:
    """Runs a chunk to its ends, or to its first forks if they are to be handed back.

    At most `parallel` stretches are in flight. The stack is last in, first out: a case is finished
    before the next is begun, so that memory and open workspaces stay bounded by `parallel`.
    """
    work = _Work(stack=list(reversed(chunk.items)))
    if chunk.return_forks:
        parallel = min(parallel, len(chunk.items))
    with session.surroundings.chunk() as outside:
        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(_worker(work, chunk.return_forks, scope, session))
        files = tuple(outside.found()) if work.node_executions else ()
    return ChunkResult(
        remaining=tuple(work.returned), node_executions=work.node_executions, files_outside=files
    )


def first_failure(error: BaseException) -> BaseException:
    """What to report of a group of failures: an infrastructure fault if there is one."""
    while isinstance(error, BaseExceptionGroup):
        faults, _ = error.split(InfrastructureError)
        error = (faults or error).exceptions[0]
    return error


@dataclass(slots=True)
class _Work:
    stack: list[WorkItem]
    returned: list[WorkItem] = field(default_factory=list)
    node_executions: int = 0
    running: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


async def _worker(work: _Work, return_forks: bool, scope: BatchScope, session: Session) -> None:
    while work.stack or work.running:
        if not work.stack:
            # Another worker may still fork; wait until one of them ends a stretch.
            work.changed.clear()
            await work.changed.wait()
            continue
        if scope.options.fail_fast and is_stopped(scope.batch_id, session):
            work.stack.clear()
            continue
        item = work.stack.pop()
        work.running += 1
        try:
            outcome = await run_segment(item, scope, session)
        finally:
            work.running -= 1
            work.changed.set()
        _take(work, outcome, return_forks)
        work.changed.set()


def _take(work: _Work, outcome: SegmentOutcome, return_forks: bool) -> None:
    work.node_executions += outcome.node_executions
    if return_forks:
        work.returned.extend(outcome.children)
    else:
        work.stack.extend(reversed(outcome.children))
