"""The rest of a batch whose Prefect server is lost: the same chunks on the same workers.

A task run cannot even begin without its server (its first step is to ask for a concurrency slot),
and the server is a view: what it cannot show is in the ledger all the same.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
from prefect.context import FlowRunContext
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed

from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner
from wtb_prefect.api.segment_task import execute_chunk
from wtb_prefect.errors import InfrastructureError

_TRIES = 3
_PAUSE_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


class ServerLostError(InfrastructureError):
    """The Prefect server of a run has ended before the run did."""


def server_is_lost() -> bool:
    """Whether nothing listens at the server's address any more; a slow one is not lost."""
    url = str(PREFECT_API_URL.value() or "")
    for left in reversed(range(_TRIES if url else 0)):
        try:
            httpx.get(f"{url.rstrip('/')}/health", timeout=_ANSWER_SECONDS)
        except httpx.ConnectError:
            time.sleep(_PAUSE_SECONDS if left else 0)
        except httpx.HTTPError:
            return False
        else:
            return False
    return bool(url)


class WithoutServer:
    """Runs chunks as plain calls where the flow's task runner would have run them as tasks.

    Make it where the flow run is known.
    """

    def __init__(self, parameters: dict[str, Any], slots: int) -> None:
        context = FlowRunContext.get()
        self._parameters = parameters
        self._runner = context.task_runner if context else None
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="wtb-chunk")

    def submit(self, chunk: dict[str, Any]) -> PrefectFuture[Any]:
        """Starts a chunk; its future ends as that of a task would."""
        call_id = uuid4()
        arguments = {**self._parameters, "chunk": chunk, "answer_id": str(call_id)}
        if isinstance(self._runner, SegmentRayTaskRunner):
            future: PrefectFuture[Any] = self._runner.submit_call(call_id, _execute, arguments)
            return future
        return PrefectConcurrentFuture(call_id, self._threads.submit(_execute, **arguments))


def _execute(**arguments: Any) -> Any:
    return Completed(data=execute_chunk(**arguments))
