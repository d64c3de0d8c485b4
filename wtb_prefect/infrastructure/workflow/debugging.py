"""Nodes under Python's debugger: it stops at the first line of a node's code and where one raises.

Everything runs in the main thread, one node at a time: sync nodes too, which else run in threads,
where a debugger cannot be interrupted and two of them would share one terminal.
"""

from __future__ import annotations

import asyncio
import bdb
import os
import pdb
import signal
import sys
import sysconfig
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

from langgraph.errors import GraphBubbleUp

from wtb_prefect.infrastructure.workflow.node_executors import NodeCall, NodeExecutor

T = TypeVar("T")

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_LIBRARIES = tuple(
    f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_MACHINERY = (
    *("asyncio*", "concurrent*", "selectors", "contextvars", "threading"),
    *("langgraph*", "langchain_core*", "wtb_prefect*"),
)
"""Modules between a node and the next one, which `step` goes over."""

_inside: ContextVar[bool] = ContextVar("wtb_debugged_node", default=False)


class NodeDebugger(pdb.Pdb):
    """pdb that begins in the user's own code. `node` None: every node; `stops` False: only where
    one raises. `own` is a folder that counts as the user's code wherever it lies."""

    def __init__(self, node: str | None, *, stops: bool, own: str | None = None) -> None:
        super().__init__(skip=_MACHINERY, nosigint=True)
        self._node = node
        self._stops = stops
        self._own = own
        self._waiting = False
        self.quitting = False
        self.was_left = False
        self.turn = asyncio.Lock()
        self.main: asyncio.Task[Any] | None = None

    def watches(self, node: str) -> bool:
        """Whether it stops in a node (`outer` includes `outer|inner`)."""
        asked = self._node
        return self._stops and (asked is None or f"{node}|".startswith(f"{asked}|"))

    def begin(self, node: str) -> None:
        """From here on, the next line of the user's code stops."""
        self.reset()
        self._waiting = True
        self.message(f"-- node {node!r}")
        sys.settrace(self.trace_dispatch)

    def end(self, node: str) -> None:
        """The node is over. Breakpoints that the user has set go on counting."""
        if self._waiting:
            self.message(f"-- node {node!r} runs no code of this project")
        self._waiting = False
        if not self.breaks:
            sys.settrace(None)

    def look_at(self, node: str, error: Exception) -> None:
        """Post-mortem; leaving it lets the exception go on."""
        sys.settrace(None)
        self.reset()
        last = " ".join("".join(traceback.format_exception_only(error)).split())
        self.message(f"-- node {node!r} raised {last}; post-mortem (q goes on)")
        self.interaction(None, _from_users(error, self._is_users))
        self.quitting = False

    def stop_here(self, frame: FrameType) -> bool:
        """See `bdb.Bdb.stop_here`."""
        return self._is_users(frame) if self._waiting else super().stop_here(frame)

    def user_call(self, frame: FrameType, argument_list: Any) -> None:
        """Not at the call itself: at the first line the arguments are there to look at."""
        if not self._waiting:
            super().user_call(frame, argument_list)

    def user_line(self, frame: FrameType) -> None:
        """See `bdb.Bdb.user_line`."""
        self._waiting = False
        super().user_line(frame)

    def _is_users(self, frame: FrameType) -> bool:
        file = frame.f_code.co_filename
        if file.startswith("<"):
            return False
        if self._own is not None and file.startswith(f"{self._own}{os.sep}"):
            return True
        installed = f"{os.sep}site-packages{os.sep}" in file or file.startswith(_LIBRARIES)
        return not installed and not file.startswith(f"{_PACKAGE}{os.sep}")


def debugged(debugger: NodeDebugger) -> Callable[[str, NodeExecutor], NodeExecutor]:
    """Puts the debugger around the executor of every node."""
    return lambda node, inner: _DebuggedNode(debugger, inner)


class _DebuggedNode:
    def __init__(self, debugger: NodeDebugger, inner: NodeExecutor) -> None:
        self._debugger = debugger
        self._inner = inner

    async def execute(self, call: NodeCall) -> Any:
        """One node at a time; a node that calls another graph does not wait for itself."""
        if _inside.get():
            return await self._execute(call)
        async with self._debugger.turn:
            token = _inside.set(True)
            try:
                return await self._execute(call)
            finally:
                _inside.reset(token)

    async def _execute(self, call: NodeCall) -> Any:
        debugger = self._debugger

        async def proceed(given: Any) -> Any:
            if not debugger.watches(call.node):
                return await call.proceed(given)
            debugger.begin(call.node)
            try:
                return await call.proceed(given)
            finally:
                debugger.end(call.node)

        watched: Callable[[Any], Awaitable[Any]] = proceed
        try:
            result = await self._inner.execute(NodeCall(call.node, call.state, watched))
        except GraphBubbleUp:
            raise  # interrupts and commands to a parent: no failures
        except bdb.BdbQuit:
            debugger.quitting = True
        except Exception as exc:  # of the user's node: shown, then raised on
            if not debugger.quitting:
                debugger.look_at(call.node, exc)
                raise
        if debugger.quitting:
            return await self._leave()
        return result

    async def _leave(self) -> None:
        """`q` ends the run, not only the node, which may be one that is tried again."""
        self._debugger.was_left = True
        assert self._debugger.main is not None
        self._debugger.main.cancel()
        await asyncio.get_running_loop().create_future()


def run_debugged(work: Coroutine[Any, Any, T], debugger: NodeDebugger) -> T | None:
    """Runs a coroutine in this thread; None if the user left the debugger before its end."""

    async def main() -> T | None:
        asyncio.get_running_loop().set_default_executor(_HereAndNow())
        # asyncio's own handler would cancel the run, unseen, while the user types a command.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        debugger.main = asyncio.current_task()
        try:
            return await work
        except asyncio.CancelledError:
            if debugger.was_left:
                return None
            raise

    try:
        return asyncio.run(main())
    finally:
        sys.settrace(None)


class _HereAndNow(ThreadPoolExecutor):
    """Runs what is submitted at once, in the thread that submits it (asyncio takes nothing but a
    thread pool). To the code it looks like a thread: no event loop is running in it."""

    def __init__(self) -> None:
        super().__init__(1)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor.submit`."""
        done: Future[T] = Future()
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001 - whatever it is, whoever waits for it gets it
            done.set_exception(exc)
        finally:
            asyncio._set_running_loop(loop)
        return done


def _from_users(error: Exception, is_users: Callable[[FrameType], bool]) -> Any:
    """The traceback from where the user's code begins, if it does."""
    found = error.__traceback__
    while found is not None:
        if is_users(found.tb_frame):
            return found
        found = found.tb_next
    return error.__traceback__
