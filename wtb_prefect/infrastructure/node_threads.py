"""Threads for sync nodes. Python cannot stop one that hangs: it is left behind, and told of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.infrastructure.workflow.body_context import body_context

P = ParamSpec("P")
T = TypeVar("T")

NODE_THREADS = 64
"""Sync nodes run in threads; asyncio's default of cores + 4 would hold back waiting nodes."""

GRACE_SECONDS = 2.0
"""What is left behind often ends by itself: a sibling of a node that failed, for one."""

running_node: ContextVar[str] = ContextVar("wtb_running_node", default="")
"""The node whose implementation is called in this context."""

_left: set[_Call] = set()
_lock = threading.Lock()


def nodes_left_behind(workspace: Workspace | None = None, grace: float = 0.0) -> tuple[str, ...]:
    """The nodes whose bodies still run in this process although nobody waits for them any more.

    Only those that work in `workspace`, if one is given. They get `grace` seconds to end.
    """
    deadline = time.monotonic() + grace
    while True:
        with _lock:
            found = [c for c in _left if c.workspace is (workspace or c.workspace)]
        if not found or time.monotonic() >= deadline:
            return tuple(sorted({call.node or "(unnamed)" for call in found}))
        time.sleep(0.02)


class _Call(Future[Any]):
    """One call in a thread; cancelling it while it runs leaves it behind."""

    def __init__(self, pool: NodeThreads, work: Callable[[], Any]) -> None:
        super().__init__()
        self._pool = pool
        self.work: Callable[[], Any] | None = work
        context = body_context.get(None)
        self.workspace = None if context is None else context.workspace
        self.node = running_node.get()
        self.thread: threading.Thread | None = None
        self.is_left = False

    def cancel(self) -> bool:
        """As a future's; asyncio calls it when whoever waited was cancelled."""
        cancelled = super().cancel()
        if not cancelled and self.running():
            self._pool.leave(self)
        return cancelled


class NodeThreads(ThreadPoolExecutor):
    """A pool whose threads hold up neither the event loop's end nor the interpreter's.

    A body that was left behind has its thread to itself: another one takes its place in the pool.
    """

    def __init__(self, limit: int = NODE_THREADS) -> None:
        super().__init__(limit)
        self._limit = limit
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads_now: set[threading.Thread] = set()
        self._waiting = 0
        self._idle = 0
        self._is_closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor.submit`."""
        call = _Call(self, lambda: fn(*args, **kwargs))
        with _lock:
            if self._is_closed:
                raise RuntimeError("a sync node was called after the run had ended")
            self._waiting += 1
            if self._waiting > self._idle and len(self._threads_now) < self._limit:
                self._start()
        self._calls.put(call)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor.shutdown`; does not wait for what was left behind."""
        with _lock:
            self._is_closed = True
            threads = list(self._threads_now)
        if cancel_futures:
            self._cancel_waiting()
        for _ in threads:
            self._calls.put(None)
        while wait and any(thread.is_alive() for thread in threads):
            with _lock:
                threads = [thread for thread in threads if thread in self._threads_now]
            for thread in threads:
                thread.join(0.02)

    def leave(self, call: _Call) -> None:
        """Notes that nobody waits for a running call any more."""
        with _lock:
            if call.done() or call.is_left:
                return
            call.is_left = True
            if call.workspace is not None:
                _left.add(call)
            if call.thread is not None:
                self._threads_now.discard(call.thread)
            if self._waiting > self._idle:
                self._start()

    def _cancel_waiting(self) -> None:
        with suppress(Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call.cancel()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="wtb-node", daemon=True)
        self._threads_now.add(thread)
        self._idle += 1
        thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            with _lock:
                self._waiting -= 1
                self._idle -= 1
                call.thread = threading.current_thread()
            self._run(call)
            with _lock:
                if call.is_left:
                    _left.discard(call)
                    return
                self._idle += 1
            del call  # a result may be large, and this thread may wait for long
        with _lock:
            self._threads_now.discard(threading.current_thread())

    @staticmethod
    def _run(call: _Call) -> None:
        work, call.work = call.work, None
        if work is None or not call.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            call.set_exception(error)
        else:
            call.set_result(result)
        finally:
            del work
