"""The gate: stops before a node whose variant is still open, without stopping its siblings."""

from __future__ import annotations

from typing import Any, NoReturn

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_READ
from langgraph._internal._runnable import RunnableCallable
from langgraph.errors import GraphInterrupt

from wtb_prefect.infrastructure.workflow.body_context import body_context


def make_gate(node: str, channels: tuple[str, ...]) -> RunnableCallable:
    """A runnable that takes a node's place, notes that it was reached, and interrupts.

    `channels` are those whose live values it notes, to be compared with the checkpoint's.

    An empty `GraphInterrupt` is what a subgraph's own breakpoint raises: nothing is stored for the
    node, it is neither retried nor handled as an error, and the other nodes of the super-step run
    to their end and keep their writes as pending writes of the head. (`interrupt_before` would stop
    the siblings, and would not fire again on resume: the wrong variant would run, silently.)
    """

    def gate(state: Any, config: RunnableConfig) -> NoReturn:
        read = config["configurable"][CONFIG_KEY_READ]
        body_context.get().gate_hits.append((node, read(list(channels), False)))
        raise GraphInterrupt(())

    async def agate(state: Any, config: RunnableConfig) -> NoReturn:
        gate(state, config)

    return RunnableCallable(gate, agate, name=node, trace=False)
