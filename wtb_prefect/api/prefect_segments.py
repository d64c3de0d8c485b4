"""Chunks as Prefect tasks: the `SegmentRunner` of a flow, whatever its task runner is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException
from prefect.futures import PrefectFuture
from prefect.logging import get_logger
from prefect.logging.handlers import APILogWorker
from prefect.states import Crashed

from wtb_prefect.domain.interfaces.segment_runner import (
    Chunk,
    ChunkResult,
    WorkItem,
)
from wtb_prefect.errors import InfrastructureError

DRAIN_SECONDS = 10.0
# A task run's row appears when the server has recorded its first event: 0.5 to 3 s after the fact.
RECONCILE_SECONDS = 15.0
RECONCILE_PAUSE = 0.5
CLOSE_SECONDS = 5.0
FLOW_RUN_LOGGER = "prefect.flow_runs"

logger = get_logger("wtb.segments")


@dataclass(frozen=True, slots=True)
class _Submitted:
    number: int
    chunk: Chunk
    future: PrefectFuture[dict[str, Any]]
    is_task: bool


class PrefectSegmentRunner:
    """Runs chunks as task runs of the current flow run, on the flow's task runner.

    Args:
        task: a sync task `(..., chunk: dict) -> dict`; its result is what `result_to_json` gives.
        parameters: the task's other parameters, the same for every chunk.
        slots: how many chunks run at once.
        left_answer: what a worker that ended itself has left of a task run, if it did.
        instead: runs a chunk without Prefect, once the server is lost; None: nothing does.
        is_lost: looks whether it is.
    """

    def __init__(
        self,
        task: Task[..., dict[str, Any]],
        *,
        parameters: Mapping[str, Any],
        slots: int,
        left_answer: Callable[[UUID], dict[str, Any] | None] = lambda _: None,
        instead: Callable[[dict[str, Any]], PrefectFuture[Any]] | None = None,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        # Our ledger decides what runs again; with caching on, equal inputs give an old result.
        self._task = task.with_options(retries=0, cache_policy=NO_CACHE)
        self._parameters = dict(parameters)
        self._slots = slots
        self._left_answer = left_answer
        self._instead = instead
        self._is_lost = is_lost
        self._server_lost = False
        self._count = 0
        self._unfinished: dict[UUID, _Submitted] = {}
        self._done: asyncio.Queue[_Submitted] = asyncio.Queue()
        self._reconciler = TaskRunReconciler()

    @property
    def slots(self) -> int:
        """How many chunks run at once."""
        return self._slots

    @property
    def in_flight(self) -> int:
        """How many chunks were submitted and not yet returned."""
        return len(self._unfinished)

    def submit(self, chunk: Chunk) -> None:
        """Starts a chunk as a task run. Call it on the event loop that awaits the results."""
        self._count += 1
        is_task = self._instead is None or not self._server_lost
        future = self._submit_task(chunk) if is_task else self._submit_call(chunk)
        submitted = _Submitted(self._count, chunk, future, is_task)
        self._unfinished[future.task_run_id] = submitted
        loop = asyncio.get_running_loop()

        def tell(_: PrefectFuture[dict[str, Any]]) -> None:
            # Called in a thread of Ray or of the pool, perhaps after the loop was closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._done.put_nowait, submitted)

        future.add_done_callback(tell)

    def _submit_task(self, chunk: Chunk) -> PrefectFuture[dict[str, Any]]:
        items = len(chunk.items)
        name = f"segments {self._count} ({items} item{'' if items == 1 else 's'})"
        future: PrefectFuture[dict[str, Any]] = self._task.with_options(task_run_name=name).submit(
            **self._parameters, chunk=chunk_to_json(chunk)
        )
        return future

    def _submit_call(self, chunk: Chunk) -> PrefectFuture[dict[str, Any]]:
        assert self._instead is not None
        return self._instead(chunk_to_json(chunk))

    async def next_result(self) -> ChunkResult:
        """The next finished chunk's result; a lost worker's items come back as `lost`."""
        if not self._unfinished:
            raise InfrastructureError("next_result() was called with no chunk in flight")
        submitted = await self._done.get()
        del self._unfinished[submitted.future.task_run_id]
        return await asyncio.to_thread(self._result, submitted)

    @property
    def server_lost(self) -> bool:
        """Whether the server was found to be lost."""
        return self._server_lost

    def close(self) -> None:
        """Ends what still runs and sets its task runs to Crashed; at most about 10 s. Call it in a
        `finally`: after an ordinary end it only waits for what is being reconciled."""
        self._cancel([submitted.future for submitted in self._unfinished.values()])
        for submitted in [] if self._server_lost else self._unfinished.values():
            self._reconciler.crashed(
                submitted.future.task_run_id, "stopped: the batch ended before this chunk did"
            )
        self._unfinished.clear()
        self._reconciler.close()

    def _cancel(self, futures: list[PrefectFuture[dict[str, Any]]]) -> None:
        context = FlowRunContext.get()
        # Only our Ray runner can end running tasks; Prefect's own waits for its threads.
        cancel = getattr(context.task_runner, "cancel", None) if context else None
        if cancel is None:
            return
        for future in futures:
            cancel(future)
        # States of a task that still ends by itself must reach the server before ours does.
        deadline = time.monotonic() + CLOSE_SECONDS
        for future in futures:
            future.wait(max(0.0, deadline - time.monotonic()))

    def _result(self, submitted: _Submitted) -> ChunkResult:
        state = _final_state(submitted.future)
        if state.is_crashed():
            return self._crashed(submitted, state)
        answer: Any = submitted.future.result(raise_on_failure=False)
        if isinstance(answer, BaseException) and self._for_want_of_a_server(submitted):
            return ChunkResult(remaining=submitted.chunk.items)
        if isinstance(answer, InfrastructureError | ConnectionError):
            return self._lost(submitted, f"{type(answer).__name__}: {answer}")
        if isinstance(answer, BaseException):
            raise answer
        return result_from_json(answer)

    def _crashed(self, submitted: _Submitted, state: State[Any]) -> ChunkResult:
        left = self._left_answer(submitted.future.task_run_id)
        if left is not None:
            logger.warning("The worker of chunk %s ended: a node hangs", submitted.number)
            return result_from_json(left)
        if self._for_want_of_a_server(submitted):
            return ChunkResult(remaining=submitted.chunk.items)
        reason = _one_line(state.message or state.name or "no reason given")
        if not self._server_lost:
            self._reconciler.crashed(submitted.future.task_run_id, reason)
        return self._lost(submitted, reason)

    def _for_want_of_a_server(self, submitted: _Submitted) -> bool:
        """Whether a task failed because its server is lost, which is not its items' fault."""
        if not submitted.is_task or self._instead is None:
            return False
        if not self._server_lost and self._is_lost():
            self._server_lost = True
            logger.warning("The Prefect server does not answer any more: going on without it")
            # Prefect's engine tells of it with a traceback at every turn.
            logging.getLogger(FLOW_RUN_LOGGER).setLevel(logging.CRITICAL)
        return self._server_lost

    def _lost(self, submitted: _Submitted, reason: str) -> ChunkResult:
        logger.warning("Chunk %s was lost: %s", submitted.number, reason)
        return ChunkResult(lost=submitted.chunk.items, lost_reason=reason)


def _one_line(message: str) -> str:
    """First and last line: of a traceback in a message, what it is about and what it was."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"


def _final_state(future: PrefectFuture[Any]) -> State[Any]:
    try:
        future.wait()
    except Exception as error:  # noqa: BLE001 - the pool failed, not the task: the chunk is lost
        return Crashed(message=f"{type(error).__name__}: {error}")
    return future.state


class TaskRunReconciler:
    """Sets task runs of dead workers to Crashed: nobody else does, they stay Running for ever.

    It works beside the batch, for a bounded time each, and never fails it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="wtb-reconcile")
        self._pending: list[Future[None]] = []
        self._hurry = threading.Event()

    def crashed(self, task_run_id: UUID, reason: str) -> None:
        """Sets the task run to Crashed on the server, soon."""
        # The copied context carries Prefect's settings (the server's address) into the thread.
        self._pending.append(
            self._pool.submit(copy_context().run, self._set_crashed, task_run_id, reason)
        )

    def close(self) -> None:
        """Waits for what is under way, bounded."""
        wait(self._pending, timeout=CLOSE_SECONDS)
        self._hurry.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _set_crashed(self, task_run_id: UUID, reason: str) -> None:
        deadline = time.monotonic() + RECONCILE_SECONDS
        trouble: Exception | None = None
        while time.monotonic() < deadline and not self._hurry.is_set():
            try:
                _force_crashed(task_run_id, reason)
                return
            except (httpx.HTTPError, PrefectException) as error:
                trouble = error
            self._hurry.wait(RECONCILE_PAUSE)
        # A task that never started has no row (404): nothing is shown as Running.
        if trouble and not _is_not_found(trouble):
            logger.warning("Task run %s is not set to Crashed: %s", task_run_id, trouble)


def _is_not_found(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 404


def _force_crashed(task_run_id: UUID, reason: str) -> None:
    with get_client(sync_client=True, httpx_settings={"timeout": CLOSE_SECONDS}) as client:
        client.set_task_run_state(task_run_id, Crashed(message=reason), force=True)


def drain_worker_queues(seconds: float = DRAIN_SECONDS) -> None:
    """Sends the logs and events that this process has queued, and waits for it, bounded.

    Nothing else does that in a Ray worker: what is queued when Ray stops the worker is lost (2 of
    65 log lines in a run of 45 tasks). The services start again by themselves with the next log or
    event. Call it outside an event loop.
    """
    deadline = time.monotonic() + seconds
    for service in (EventsWorker, APILogWorker):
        drained = service.drain_all(timeout=max(0.1, deadline - time.monotonic()))
        if asyncio.iscoroutine(drained):
            drained.close()
            raise RuntimeError("drain_worker_queues() was called on an event loop")


def chunk_to_json(chunk: Chunk) -> dict[str, Any]:
    """The chunk as JSON values: the `chunk` parameter of the task."""
    return {"items": [item.to_json() for item in chunk.items], "return_forks": chunk.return_forks}


def chunk_from_json(data: Mapping[str, Any]) -> Chunk:
    """The chunk from what `chunk_to_json` gave."""
    items = tuple(WorkItem.from_json(item) for item in data["items"])
    return Chunk(items=items, return_forks=data["return_forks"])


def result_to_json(result: ChunkResult) -> dict[str, Any]:
    """The result as JSON values: what the task returns."""
    return asdict(result)


def result_from_json(data: Mapping[str, Any]) -> ChunkResult:
    """The result from what `result_to_json` gave."""
    return ChunkResult(
        remaining=tuple(WorkItem.from_json(item) for item in data["remaining"]),
        lost=tuple(WorkItem.from_json(item) for item in data["lost"]),
        lost_reason=data["lost_reason"],
        node_executions=data["node_executions"],
        files_outside=tuple(data["files_outside"]),
    )
