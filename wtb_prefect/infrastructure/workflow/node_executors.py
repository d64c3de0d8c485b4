"""How the implementation of a node is called: the seam for caches, mocks and remote nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINT_NS, CONFIG_KEY_TASK_ID

from wtb_prefect.infrastructure.node_threads import running_node
from wtb_prefect.infrastructure.workflow.body_context import body_context


@dataclass(frozen=True, slots=True)
class NodeCall:
    """One call of a node: its path (`outer|inner`), its input, and how to call what it stands for.

    `proceed` calls the implementation with an input, sync ones in a thread.
    """

    node: str
    state: Any
    proceed: Callable[[Any], Awaitable[Any]]

    @property
    def config(self) -> RunnableConfig:
        """LangGraph's config of this task."""
        return var_child_runnable_config.get() or {}

    @property
    def task_id(self) -> str:
        """LangGraph's id of this task; empty outside of a graph."""
        found: str = self.config.get("configurable", {}).get(CONFIG_KEY_TASK_ID, "")
        return found

    @property
    def namespace(self) -> str:
        """The checkpoint namespace of the graph this task belongs to; empty for the top graph."""
        found: str = self.config.get("configurable", {}).get(CONFIG_KEY_CHECKPOINT_NS, "")
        return found.rpartition("|")[0]


class NodeExecutor(Protocol):
    """Answers a call of a node with what the node returns.

    Executors wrap each other; the innermost one calls the implementation. They run in the event
    loop, in the context of the task: `body_context` tells the execution they belong to.
    """

    async def execute(self, call: NodeCall) -> Any: ...


class DefaultNodeExecutor:
    """Calls the implementation and reports that a node body ran."""

    async def execute(self, call: NodeCall) -> Any:
        """See `NodeExecutor.execute`."""
        context = body_context.get(None)
        if context is not None and context.observer is not None:
            context.observer.body_called(call.task_id, call.node, call.namespace)
        running_node.set(call.node)
        return await call.proceed(call.state)


AroundExecutor = Callable[[str, NodeExecutor], NodeExecutor]
"""What is put around the executor of a node, by its path: a debugger."""
