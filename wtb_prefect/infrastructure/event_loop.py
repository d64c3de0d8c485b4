"""One async core: every blocking method is one line over this."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

NODE_THREADS = 64
"""Sync nodes run in threads; asyncio's default of cores + 4 would hold back waiting nodes."""


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, also where an event loop is running already (a notebook)."""
    if asyncio._get_running_loop() is None:
        return asyncio.run(_with_threads(work))
    return _in_thread(work)


async def _with_threads(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(NODE_THREADS, thread_name_prefix="wtb-node")
    loop.set_default_executor(pool)
    try:
        return await work
    except asyncio.CancelledError:
        # Ctrl-C: a sync node cannot be stopped, and closing the loop would wait for it. Its
        # result is not recorded; the node runs again when the batch goes on.
        pool.shutdown(wait=False, cancel_futures=True)
        loop.set_default_executor(ThreadPoolExecutor(1))
        raise


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """A loop of its own in a thread of its own; Ctrl-C cancels it and waits for its clean-up.

    The copied context carries a Prefect flow run, to whose task runner tasks are submitted.
    """
    loops: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()

    async def body() -> T:
        loops.append(asyncio.get_running_loop())
        ready.set()
        return await _with_threads(work)

    with ThreadPoolExecutor(1, thread_name_prefix="wtb-loop") as pool:
        future = pool.submit(copy_context().run, asyncio.run, body())
        try:
            return future.result()
        except KeyboardInterrupt:
            ready.wait()
            for task in asyncio.all_tasks(loops[0]):
                loops[0].call_soon_threadsafe(task.cancel)
            raise
