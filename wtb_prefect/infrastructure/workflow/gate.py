"""The gate: stops before a node whose variant is still open, without stopping its siblings."""

from __future__ import annotations

from typing import Any, NoReturn

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_READ,
)
from langgraph._internal._runnable import RunnableCallable
from langgraph.errors import GraphInterrupt

from wtb_prefect.infrastructure.workflow.body_context import GateHit, body_context


def make_gate(path: str, channels: tuple[str, ...]) -> RunnableCallable:
    """A runnable that takes the place of the node at `path`, notes that it was reached, interrupts.

    `channels` are those of its graph whose live values it notes, to be compared with the
    checkpoint's.

    An empty `GraphInterrupt` is what a subgraph's own breakpoint raises: nothing is stored for the
    node, it is neither retried nor handled as an error, and the other nodes of the super-step run
    to their end and keep their writes as pending writes of the head. (`interrupt_before` would stop
    the siblings, and would not fire again on resume: the wrong variant would run, silently.)
    """

    def gate(state: Any, config: RunnableConfig) -> NoReturn:
        configurable = config["configurable"]
        namespace = configurable.get(CONFIG_KEY_CHECKPOINT_NS, "").rpartition("|")[0]
        live = configurable[CONFIG_KEY_READ](list(channels), False)
        around = tuple(configurable[CONFIG_KEY_CHECKPOINT_MAP])
        body_context.get().gate_hits.append(GateHit(path, namespace, live, around))
        raise GraphInterrupt(())

    async def agate(state: Any, config: RunnableConfig) -> NoReturn:
        gate(state, config)

    return RunnableCallable(gate, agate, name=path.rpartition("|")[2], trace=False)
