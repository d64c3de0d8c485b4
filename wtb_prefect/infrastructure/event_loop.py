"""One async core: every blocking method is one line over this."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from types import FrameType
from typing import Any, TypeVar

from wtb_prefect.infrastructure.node_threads import NodeThreads

T = TypeVar("T")

TERMINATED = 128 + signal.SIGTERM
"""The exit status of a process that ended because it was asked to."""


class _Ending:
    """Why a run is cancelled: set before its tasks hear of it."""

    terminated = False
    cancel: Callable[[], object] | None = None


_ending: ContextVar[_Ending] = ContextVar("wtb_ending")


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, also where an event loop is running already (a notebook)."""
    if asyncio._get_running_loop() is not None:
        return run_in_thread(work)
    ending = _Ending()

    async def body() -> T:
        # As asyncio does with Ctrl-C: an exception in the midst of the loop would pass through
        # every task that waits for another, and leave the loop before the books are closed.
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        ending.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        return await _with_threads(work)

    with _context(ending), _sigterm_as_exit(ending):
        try:
            return asyncio.run(body())
        except asyncio.CancelledError:
            if ending.terminated:
                raise SystemExit(TERMINATED) from None
            raise


def run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """The same in a loop of its own in a thread of its own.

    What a signal raises here meanwhile (Ctrl-C, SIGTERM where somebody handles it) cancels the
    work and waits for its clean-up. The copied context carries a Prefect flow run, to whose task
    runner tasks are submitted.
    """
    loops: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()

    async def body() -> T:
        loops.append(asyncio.get_running_loop())
        ready.set()
        return await _with_threads(work)

    ending = _Ending()
    with (
        _context(ending),
        _sigterm_as_exit(ending),
        ThreadPoolExecutor(1, thread_name_prefix="wtb-loop") as pool,
    ):
        future = pool.submit(copy_context().run, asyncio.run, body())
        try:
            return future.result()
        except BaseException as exc:  # raised on, when the work has closed its books
            _take_your_time()
            if not future.done():
                ending.terminated = not isinstance(exc, KeyboardInterrupt)
                ready.wait()
                for task in asyncio.all_tasks(loops[0]):
                    loops[0].call_soon_threadsafe(task.cancel)
            raise


def was_terminated() -> bool:
    """Whether the run this is called in was asked to end, and not interrupted at the keyboard."""
    ending = _ending.get(None)
    return ending is not None and ending.terminated


async def _with_threads(work: Coroutine[Any, Any, T]) -> T:
    # After Ctrl-C a sync node may still run: closing the loop does not wait for it. Its result is
    # not recorded; the node runs again when the batch goes on.
    asyncio.get_running_loop().set_default_executor(NodeThreads())
    return await work


def _take_your_time() -> None:
    """Ray's own handler of SIGTERM, which comes first, has an alarm abort the process 3 s later: on
    a busy machine in the middle of closing the books."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(0)


@contextmanager
def _context(ending: _Ending) -> Iterator[None]:
    token = _ending.set(ending)
    try:
        yield
    finally:
        _ending.reset(token)


@contextmanager
def _sigterm_as_exit(ending: _Ending) -> Iterator[None]:
    """SIGTERM as `SystemExit`, where nobody handles it: books are closed before the end."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        _take_your_time()
        ending.terminated = True
        if ending.cancel is None:
            raise SystemExit(TERMINATED)
        ending.cancel()

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
