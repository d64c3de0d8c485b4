"""Keeping what a node returns, and answering for a node with what it returned before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.errors import GraphInterrupt

from wtb_prefect.domain.mock_node import KeptOutput, ReplayedNode
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.workflow.body_context import (
    BodyContext,
    GateHit,
    body_context,
)
from wtb_prefect.infrastructure.workflow.node_executors import NodeCall, NodeExecutor


class RecordingNodeExecutor:
    """Has the output of a node kept, where the batch asks for it."""

    def __init__(self, inner: NodeExecutor) -> None:
        self._inner = inner

    async def execute(self, call: NodeCall) -> Any:
        """See `NodeExecutor.execute`; of a node that is tried again the last output is kept."""
        output = await self._inner.execute(call)
        context = body_context.get(None)
        if context is not None and context.observer is not None and call.node in context.kept:
            await context.observer.output_returned(call.task_id, place_of(call), output)
        return output


class RecordedNodeExecutor:
    """Answers with the output of the same visit in an earlier batch, its files included."""

    def __init__(self, mock: ReplayedNode) -> None:
        self._mock = mock

    async def execute(self, call: NodeCall) -> Any:
        """See `NodeExecutor.execute`.

        Raises:
            InvalidInputError: the earlier batch did not visit the node that often.
        """
        context = body_context.get()
        if self._mock.undecided is not None:
            # Like a gate: nothing is stored for the node, and the combinations go on unshared.
            context.not_shareable = self._mock.undecided
            context.gate_hits.append(GateHit(call.node, call.namespace, {}))
            raise GraphInterrupt(())
        output = self._output(call, await asyncio.to_thread(self._mock.read))
        await asyncio.to_thread(_replay_files, context, output)
        return output.value

    def _output(self, call: NodeCall, steps: Sequence[Mapping[str, KeptOutput]]) -> KeptOutput:
        step = call.config["metadata"]["langgraph_step"]
        context = body_context.get()
        visited = context.visited.setdefault(call.node, set(self._mock.earlier))
        visited.add(step)
        number = len([earlier for earlier in visited if earlier < step])
        if number >= len(steps):
            raise InvalidInputError(
                f"visit {number + 1} of recorded node {call.node!r}: {self._mock.source} visited "
                f"it in {len(steps)} super-step{'' if len(steps) == 1 else 's'}; "
                "record a batch that goes this way, or mock the node with a function"
            )
        found = steps[number].get(place_of(call))
        if found is None:
            places = ", ".join(sorted(steps[number]))
            raise InvalidInputError(
                f"visit {number + 1} of recorded node {call.node!r}: {self._mock.source} has no "
                f"task {place_of(call)} there; it has: {places}"
            )
        return found


def place_of(call: NodeCall) -> str:
    """What tells the tasks of one super-step apart, the same in every run of the graph."""
    kind, *rest = call.config["metadata"]["langgraph_path"]
    return "/".join(str(part) for part in [kind.removeprefix("__pregel_"), *rest[:1]])


def _replay_files(context: BodyContext, output: KeptOutput) -> None:
    if output.changed or output.removed:
        context.workspace.path()
        context.workspace.replay(output.changed, output.removed, {})
