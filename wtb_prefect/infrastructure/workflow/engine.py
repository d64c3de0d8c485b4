"""Running a LangGraph graph with chosen variants up to a gate, an interrupt, an end, a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.channels.topic import Topic
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS
from langgraph.errors import ErrorCode, GraphRecursionError, create_error_message
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel._checkpoint import channels_from_checkpoint
from langgraph.pregel._io import read_channels
from langgraph.types import Send

from wtb_prefect.domain.execution import ExecutionState
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.workflow_engine import (
    Advance,
    StepObserver,
    Stop,
    StopKind,
    TaskStart,
)
from wtb_prefect.domain.workflow import ORIGINAL, TestWorkflow, VariantSpec
from wtb_prefect.errors import GraphError, InfrastructureError, NotFoundError
from wtb_prefect.infrastructure.checkpoints.langgraph_store import (
    LangGraphCheckpointStore,
    config_for,
)
from wtb_prefect.infrastructure.checkpoints.recording_saver import (
    RecordingSaver,
    Watch,
    failure_of,
)
from wtb_prefect.infrastructure.checkpoints.serializer import check_checkpointable
from wtb_prefect.infrastructure.workflow import inspect_graph, node_swap
from wtb_prefect.infrastructure.workflow.body_context import BodyContext, body_context
from wtb_prefect.infrastructure.workflow.fingerprint import fingerprint_code
from wtb_prefect.infrastructure.workflow.gate import make_gate
from wtb_prefect.infrastructure.workflow.graph_source import GraphSource
from wtb_prefect.infrastructure.workflow.node_executors import DefaultNodeExecutor, NodeExecutor
from wtb_prefect.infrastructure.workflow.same_value import difference
from wtb_prefect.infrastructure.workflow.turns import Line, Turn

RECURSION_LIMIT = 25
"""Super-steps an execution may take, its shared prefix included (LangGraph's own default is used
for a graph that is run alone; forks get what their prefix has left)."""


class LangGraphEngine:
    """One project's graph and variants over one checkpoint store."""

    def __init__(
        self,
        source: GraphSource,
        workflow: TestWorkflow,
        variants: Sequence[VariantSpec],
        store: LangGraphCheckpointStore,
        recursion_limit: int = RECURSION_LIMIT,
    ) -> None:
        self._source = source
        self._workflow = workflow
        self._variants = {(variant.node, variant.name): variant for variant in variants}
        self._saver = RecordingSaver(store.saver)
        # Calls of one bench may run in several threads, each with a loop of its own.
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, Line] = WeakKeyDictionary()
        self._recursion_limit = recursion_limit
        self._counts_steps = inspect_graph.has_managed_steps(source.builder)
        self._compiled: dict[tuple[Any, ...], CompiledStateGraph[Any, Any, Any, Any]] = {}
        self._fingerprints: dict[tuple[str, str], str] = {}
        self._channels = {**source.builder.channels, TASKS: Topic(Send, accumulate=False)}
        schema = source.builder.schemas[source.builder.state_schema]
        self._state_keys = tuple(key for key in schema if key in self._channels)

    def describe(self) -> TestWorkflow:
        """See `WorkflowEngine.describe`."""
        return self._workflow

    def check(self) -> None:
        """Raises `GraphError` if the graph, or the graph with any variant, does not compile."""
        self._graph({}, frozenset())
        for node, name in self._variants:
            self._graph({node: name}, frozenset())

    def variant_fingerprint(self, node: str, variant: str) -> str:
        """The fingerprint of an implementation (`original` is the graph's own)."""
        if variant == ORIGINAL:
            return next(n.fingerprint for n in self._workflow.nodes if n.name == node)
        key = (node, variant)
        if key not in self._fingerprints:
            spec = self._variant(node, variant)
            self._fingerprints[key] = fingerprint_code(
                spec.implementation, spec.version, spec.depends_on
            )
        return self._fingerprints[key]

    def unshared_reasons(self, varying: Sequence[str]) -> tuple[str, ...]:
        """See `WorkflowEngine.unshared_reasons`."""
        return inspect_graph.unshared_reasons(self._source) if varying else ()

    def check_input(self, state: Mapping[str, Any]) -> None:
        """See `WorkflowEngine.check_input`."""
        inspect_graph.check_keys(self._source.builder, state)
        serde = self._saver.serde
        assert isinstance(serde, JsonPlusSerializer)
        for key, value in state.items():
            check_checkpointable(serde, key, value)

    async def advance(self, request: Advance, observer: StepObserver) -> Stop:
        """See `WorkflowEngine.advance`."""
        graph = self._graph(request.choices, request.gated)
        turn = Turn(self._lines.setdefault(asyncio.get_running_loop(), Line()))
        watch = Watch(
            observer,
            turn,
            request.step,
            keep_all_writes=self._needs_all_writes(),
        )
        context = BodyContext(request.workspace, observer)
        token = body_context.set(context)
        self._saver.watch(request.thread_id, watch)
        try:
            await self._stream(graph, request, watch)
        except InfrastructureError:
            raise
        except Exception as exc:  # noqa: BLE001 - the graph is user code and may raise anything
            return Stop(kind=StopKind.FAILED, error=failure_of(exc, None))
        finally:
            turn.give_up()
            self._saver.unwatch(request.thread_id)
            body_context.reset(token)
        if watch.interrupted:
            # An open question belongs to all combinations: it is answered before any fork.
            waiting = (await graph.aget_state(config_for(request.thread_id))).next
            return Stop(kind=StopKind.INTERRUPTED, next_nodes=waiting)
        if context.gate_hits:
            return self._gate_stop(request.thread_id, context, watch)
        return Stop(kind=StopKind.COMPLETED)

    def state(self, thread_id: str, checkpoint_id: CheckpointId) -> ExecutionState:
        """See `WorkflowEngine.state`."""
        found = self._saver.get_tuple(config_for(thread_id, checkpoint_id))
        if found is None:
            raise NotFoundError("checkpoint", checkpoint_id)
        return ExecutionState(
            execution_id=thread_id.removeprefix("wtb-"),
            checkpoint_id=checkpoint_id,
            values=self._values(found, self._state_keys),
            next_nodes=(),
        )

    async def _stream(
        self,
        graph: CompiledStateGraph[Any, Any, Any, Any],
        request: Advance,
        watch: Watch,
    ) -> None:
        """Runs the loop. Only task starts matter here: they arrive before any body of the step.

        `durability="sync"`: with LangGraph's default a join node was silently skipped in 70 of 100
        runs, because a checkpoint was serialised after the next step had changed it.
        """
        stream = graph.astream(
            None if request.input is None else dict(request.input),
            self._config(request),
            stream_mode="tasks",
            durability="sync",
        )
        async with aclosing(cast("AsyncGenerator[Any]", stream)) as events:
            try:
                async for event in events:
                    if "triggers" in event:
                        self._check_limit(watch)
                        watch.turn.give_up()
                        watch.observer.task_started(
                            TaskStart(
                                task_id=event["id"],
                                node=event["name"],
                                replayed=event["id"] in (watch.replayed or ()),
                            )
                        )
            except GraphRecursionError:
                self._check_limit(watch)  # names the limit of the whole path, not what was left
                raise
        self._check_limit(watch)

    def _check_limit(self, watch: Watch) -> None:
        """LangGraph counts steps from where a run begins; the limit is for the whole path, the
        shared prefix included. Its own rule: after step `limit` not even an end is reached."""
        if watch.step >= self._recursion_limit:
            raise GraphRecursionError(
                create_error_message(
                    message=f"Recursion limit of {self._recursion_limit} reached without hitting "
                    "a stop condition. You can increase the limit by setting the "
                    "`recursion_limit` config key.",
                    error_code=ErrorCode.GRAPH_RECURSION_LIMIT,
                )
            )

    def _config(self, request: Advance) -> RunnableConfig:
        return {
            "configurable": {"thread_id": request.thread_id, **request.tags},
            "recursion_limit": self._steps_left(request.step),
        }

    def _steps_left(self, step: int) -> int:
        """What nodes that ask how many steps are left have to be told. Subgraphs inherit the
        number, so the limit stays whole where nobody asks."""
        if step < 0 or not self._counts_steps:
            return self._recursion_limit
        return max(1, self._recursion_limit - step - 2)

    def _needs_all_writes(self) -> bool:
        # A DeltaChannel is rebuilt from the writes between two snapshots.
        return any(type(channel).__name__ == "DeltaChannel" for channel in self._channels.values())

    def _gate_stop(self, thread: str, context: BodyContext, watch: Watch) -> Stop:
        nodes = tuple(dict.fromkeys(node for node, _ in context.gate_hits))
        head = self._saver.get_tuple(config_for(thread))
        if head is None:
            raise InfrastructureError(f"thread {thread} stopped at a gate without a checkpoint")
        reason = self._probe(head, context.gate_hits[0][1], watch)
        if self._counts_steps and self._recursion_limit - head.metadata["step"] < 3:
            reason = reason or "nodes count the steps left, and LangGraph runs no fork with so few"
        return Stop(kind=StopKind.GATE, gates=nodes, not_shareable=reason)

    def _probe(self, head: CheckpointTuple, live: Mapping[str, Any], watch: Watch) -> str | None:
        """Whether a fork from the checkpoint would see what the live run sees, and if not why.

        Finds in-place mutation (values change without a new version), lossy types and untracked
        values, in every channel and in what is being sent to nodes; pending writes of finished
        siblings are compared the same way.
        """
        reloaded = self._values(head, tuple(self._channels))
        for key, value in live.items():
            where = "what is sent to nodes" if key == TASKS else f"state key {key!r}"
            if key not in reloaded:
                return f"{where} is not in the checkpoint"
            if (found := difference(value, reloaded[key], where)) is not None:
                return found
        saved: dict[str, list[tuple[str, Any]]] = {}
        for task, channel, value in head.pending_writes or ():
            saved.setdefault(task, []).append((channel, value))
        for task, writes in watch.live_writes.items():
            if (found := difference(writes, saved.get(task, []), "a pending write")) is not None:
                return found
        return None

    def _values(self, found: CheckpointTuple, keys: tuple[str, ...]) -> dict[str, Any]:
        channels, _ = channels_from_checkpoint(
            self._channels, found.checkpoint, saver=self._saver.saver, config=found.config
        )
        values = read_channels(channels, list(keys))
        assert isinstance(values, dict)
        return values

    def _variant(self, node: str, name: str) -> VariantSpec:
        found = self._variants.get((node, name))
        if found is None:
            names = [known for at, known in self._variants if at == node]
            raise NotFoundError(f"variant of node {node!r}", name, [ORIGINAL, *names])
        return found

    def _graph(
        self, choices: Mapping[str, str], gated: frozenset[str]
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The graph with these choices and gates; compiled once for all cases."""
        replaced = (pair for pair in choices.items() if pair[1] != ORIGINAL)
        chosen = tuple(sorted(pair for pair in replaced if pair[0] not in gated))
        key = (chosen, gated)
        if key not in self._compiled:
            self._compiled[key] = self._compile(chosen, gated)
        return self._compiled[key]

    def _executor_of(self, node: str) -> NodeExecutor:
        return DefaultNodeExecutor()

    def _compile(
        self, chosen: tuple[tuple[str, str], ...], gated: frozenset[str]
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        builder = node_swap.clone_builder(self._source.builder)
        for node, name in chosen:
            node_swap.swap(builder, node, self._variant(node, name).implementation)
        node_swap.instrument(builder, self._executor_of)
        for node in gated:
            node_swap.replace_runnable(builder, node, make_gate(node, tuple(self._channels)))
        try:
            compiled = builder.compile(
                checkpointer=self._saver,
                store=self._source.store,
                name=self._source.name,
            )
        except (ValueError, TypeError) as exc:
            raise GraphError(f"the graph does not compile: {exc}") from exc
        for node in gated:
            # Builder defaults are applied by compile: a gate must not be answered from a cache.
            compiled.nodes[node].cache_policy = None
        return compiled
