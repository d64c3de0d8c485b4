"""Nodes answered by canned output, and the seam at which mocked nodes leave the ordinary way."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, NoReturn

from langgraph._internal._runnable import RunnableCallable

from wtb_prefect.domain.mock_node import CannedNode, ReplayedNode
from wtb_prefect.errors import WTBError
from wtb_prefect.infrastructure.workflow.body_context import body_context
from wtb_prefect.infrastructure.workflow.node_executors import NodeCall, NodeExecutor
from wtb_prefect.infrastructure.workflow.recorded_nodes import RecordedNodeExecutor


class MockableNodeExecutor:
    """Sends the calls of a mocked node to its mock, and all others on.

    Decided call by call: graphs are compiled once for all cases, mocks may differ between them.
    """

    def __init__(self, inner: NodeExecutor) -> None:
        self._inner = inner

    async def execute(self, call: NodeCall) -> Any:
        """See `NodeExecutor.execute`."""
        context = body_context.get(None)
        mock = None if context is None else context.mocks.get(call.node)
        executor = self._inner if mock is None else executor_for(mock)
        return await executor.execute(call)


class MockNodeExecutor:
    """Answers with a canned output; the implementation is not called, and no body is counted."""

    def __init__(self, mock: CannedNode) -> None:
        self._mock = mock

    async def execute(self, call: NodeCall) -> Any:
        """See `NodeExecutor.execute`; a sync function runs in a thread, as a sync node does."""
        answer = self._mock.answer
        if inspect.iscoroutinefunction(answer):
            return await answer(call.state)
        found = await asyncio.to_thread(answer, call.state)
        return await found if inspect.isawaitable(found) else found


def executor_for(mock: CannedNode | ReplayedNode) -> NodeExecutor:
    """The executor of a mocked node."""
    if isinstance(mock, ReplayedNode):
        return RecordedNodeExecutor(mock)
    return MockNodeExecutor(mock)


def make_stand_in(node: str) -> RunnableCallable:
    """A runnable in the place of a mocked node, for its executor to answer.

    In the place of a mounted subgraph too, which no executor could keep from running.
    """

    def stand_in(state: Any) -> NoReturn:
        raise WTBError(f"node {node!r} is mocked in this batch, and nothing answered for it")

    async def astand_in(state: Any) -> NoReturn:
        stand_in(state)

    return RunnableCallable(stand_in, astand_in, name=node.rpartition("|")[2], trace=False)
