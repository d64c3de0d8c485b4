"""Running a LangGraph graph with chosen variants up to a gate, an interrupt, an end, a failure."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONFIG_KEY_RESUMING,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_STREAM,
)
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import GraphRecursionError, InvalidUpdateError
from langgraph.pregel.protocol import StreamChunk, StreamProtocol
from langgraph.runtime import DEFAULT_RUNTIME
from langgraph.types import Command

from wtb_prefect.domain.execution import ExecutionState
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.workflow_engine import (
    Advance,
    Question,
    Standing,
    StepObserver,
    Stop,
    StopKind,
    TaskStart,
)
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.workflow import ORIGINAL, TestWorkflow, VariantSpec
from wtb_prefect.errors import (
    InfrastructureError,
    InvalidInputError,
    NotFoundError,
    StateError,
)
from wtb_prefect.infrastructure.checkpoints.langgraph_store import (
    LangGraphCheckpointStore,
    config_for,
)
from wtb_prefect.infrastructure.checkpoints.recording_saver import RecordingSaver, Watch
from wtb_prefect.infrastructure.checkpoints.serializer import check_checkpointable
from wtb_prefect.infrastructure.node_threads import nodes_left_behind
from wtb_prefect.infrastructure.workflow import inspect_graph
from wtb_prefect.infrastructure.workflow.body_context import BodyContext, body_context
from wtb_prefect.infrastructure.workflow.compile_graph import (
    SEPARATOR,
    CompiledWorkflow,
    Parts,
    compile_workflow,
    path_of,
)
from wtb_prefect.infrastructure.workflow.execution_store import (
    ExecutionStore,
    content_of,
    is_copyable,
)
from wtb_prefect.infrastructure.workflow.executor_chain import ExecutorChain
from wtb_prefect.infrastructure.workflow.failed_stop import failed_stop
from wtb_prefect.infrastructure.workflow.fingerprint import fingerprint_code
from wtb_prefect.infrastructure.workflow.gate_reasons import why_apart
from wtb_prefect.infrastructure.workflow.graph_source import GraphSource
from wtb_prefect.infrastructure.workflow.holding import Holder
from wtb_prefect.infrastructure.workflow.node_executors import NodeExecutor
from wtb_prefect.infrastructure.workflow.probe import values_of
from wtb_prefect.infrastructure.workflow.questions import (
    Questions,
    asking_tasks,
    newest_answer,
    open_questions,
)
from wtb_prefect.infrastructure.workflow.recursion import StepBudget, step_budget
from wtb_prefect.infrastructure.workflow.same_value import difference, without_ids
from wtb_prefect.infrastructure.workflow.turns import Line, Turn

RECURSION_LIMIT = 25
"""Super-steps an execution may take, its shared prefix included (LangGraph's own default is used
for a graph that is run alone; forks get what their prefix has left)."""


class _EditError(InvalidInputError):
    """Whoever asked for the change is told; what nodes raise of the same kind is their failure."""


class LangGraphEngine:
    """One project's graph and variants over one checkpoint store."""

    def __init__(
        self,
        source: GraphSource,
        workflow: TestWorkflow,
        variants: Sequence[VariantSpec],
        store: LangGraphCheckpointStore,
        executors: ExecutorChain,
        recursion_limit: int = RECURSION_LIMIT,
        transient: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._surroundings = executors.surroundings
        self._executors = executors
        self._source = source
        self._workflow = workflow
        self._originals = {node.name: node.fingerprint for node in workflow.nodes}
        self._variants = {(variant.node, variant.name): variant for variant in variants}
        self._saver = RecordingSaver(store.saver)
        # Calls of one bench may run in several threads, each with a loop of its own.
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, Line] = WeakKeyDictionary()
        self._recursion_limit = recursion_limit
        self._transient = transient
        self._compiled: dict[tuple[Any, ...], CompiledWorkflow] = {}
        self._fingerprints: dict[tuple[str, str], str] = {}
        self._channels = inspect_graph.state_channels(source.builder)
        self._first_store = (
            content_of(source.store, self._saver.serde) if is_copyable(source.store) else None
        )

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
            return self._originals[node]
        key = (node, variant)
        if key not in self._fingerprints:
            spec = self._variant(node, variant)
            self._fingerprints[key] = fingerprint_code(
                spec.implementation, spec.version, spec.depends_on
            )
        return self._fingerprints[key]

    def implementation_of(self, node: str, choices: Mapping[str, str]) -> tuple[str, str]:
        """See `WorkflowEngine.implementation_of`."""
        parts = node.split(SEPARATOR)
        for end in range(1, len(parts)):
            around = SEPARATOR.join(parts[:end])
            chosen = choices.get(around, ORIGINAL)
            if chosen != ORIGINAL:
                return chosen, self.variant_fingerprint(around, chosen)
        chosen = choices.get(node, ORIGINAL)
        return chosen, self.variant_fingerprint(node, chosen)

    def unshared_reasons(self, varying: Sequence[str]) -> tuple[str, ...]:
        """See `WorkflowEngine.unshared_reasons`."""
        return inspect_graph.unshared_reasons(self._source, varying) if varying else ()

    def check_input(self, state: Mapping[str, Any]) -> None:
        """See `WorkflowEngine.check_input`."""
        inspect_graph.check_keys(self._source.builder, state)
        self._check_storable(state)

    def _check_storable(self, values: Mapping[str, Any]) -> None:
        serde = self._saver.serde
        assert isinstance(serde, JsonPlusSerializer)
        for key, value in values.items():
            check_checkpointable(serde, key, value)

    def check_edit(self, values: Mapping[str, Any]) -> None:
        """See `WorkflowEngine.check_edit`."""
        if not isinstance(values, Mapping):
            raise StateError(f"a change of the state maps keys to values, not {values!r}")
        inspect_graph.check_output_keys(self._channels, values)
        self._check_storable(values)

    def check_output(self, node: str, output: Any) -> None:
        """See `WorkflowEngine.check_output`."""
        if SEPARATOR not in node:
            inspect_graph.check_output_keys(self._channels, output)

    def difference(self, one: Any, other: Any, where: str) -> str | None:
        """See `WorkflowEngine.difference`."""
        return difference(without_ids(one), without_ids(other), where)

    async def advance(self, request: Advance, observer: StepObserver) -> Stop:
        """See `WorkflowEngine.advance`."""
        compiled = self._graph(request.choices, request.gated, frozenset(request.mocks))
        turn = Turn(self._lines.setdefault(asyncio.get_running_loop(), Line()))
        budget = StepBudget(self._recursion_limit, newest_answer(request.answered))
        watch = Watch(observer, turn, compiled.levels, budget)
        watch.steps[""] = request.step
        log = self._surroundings.log_of(request.thread_id)
        holder = None if request.hold is None else Holder(request.hold)
        context = BodyContext(
            request.workspace,
            observer,
            log=log,
            mocks=request.mocks,
            kept=request.kept,
            holder=holder,
        )
        token, counted = body_context.set(context), step_budget.set(budget)
        self._saver.watch(request.thread_id, watch)
        try:
            with self._surroundings.bodies(context):
                if request.edit is not None:
                    await _edit(compiled, request)
                watch.holder = holder  # a change by hand is no step that was taken
                left = await self._run(compiled, request, watch, context)
        except (InfrastructureError, _EditError):
            raise
        except Exception as exc:  # noqa: BLE001 - the graph is user code and may raise anything
            if watch.fault is not None:
                raise watch.fault from None
            return failed_stop(exc, self._transient)
        finally:
            turn.give_up()
            context.at_end.close()
            self._saver.unwatch(request.thread_id)
            step_budget.reset(counted)
            body_context.reset(token)
        if context.fault is not None:
            raise context.fault
        if holder is not None and holder.held:
            return Stop(kind=StopKind.HELD, next_nodes=left)
        if left and not context.gate_hits:
            return Stop(kind=StopKind.INTERRUPTED, next_nodes=left)
        if context.gate_hits:
            return self._gate_stop(request.thread_id, compiled, context, watch)
        return Stop(kind=StopKind.COMPLETED)

    def still_running(self, workspace: Workspace) -> tuple[str, ...]:
        """See `WorkflowEngine.still_running`."""
        return nodes_left_behind(workspace)

    def state(self, thread_id: str, checkpoint_id: CheckpointId) -> ExecutionState:
        """See `WorkflowEngine.state`."""
        found = self._saver.get_tuple(config_for(thread_id, checkpoint_id))
        if found is None:
            raise NotFoundError("checkpoint", checkpoint_id)
        return ExecutionState(
            execution_id=thread_id.removeprefix("wtb-"),
            checkpoint_id=checkpoint_id,
            values=values_of(found, self._channels, self._saver),
            next_nodes=(),
        )

    def standing(self, thread_id: str, choices: Mapping[str, str]) -> Standing:
        """See `WorkflowEngine.standing`."""
        graph = self._graph(choices, frozenset()).graph
        snapshot = graph.get_state(config_for(thread_id), subgraphs=True)
        asked = (Question(id=q.id, value=q.value) for q in open_questions(snapshot))
        return Standing(
            next_nodes=snapshot.next, questions=tuple(asked), asking=asking_tasks(snapshot)
        )

    async def _run(
        self, compiled: CompiledWorkflow, request: Advance, watch: Watch, context: BodyContext
    ) -> tuple[str, ...]:
        """Runs until nothing more can, or is to: answers what is asked, and gives the nodes that
        are left, because their questions have no answer or because the run is held before them.

        An open question belongs to all combinations: it is answered before any fork. Beside a gate
        only a function can do that, whose answers do not depend on what else is asked.
        """
        config = self._config(request, watch)
        questions = Questions(request.answers, request.answered, watch.observer)
        given: Any = None if request.input is None else dict(request.input)
        if request.resume:
            questions.note(request.resume, request.step, request.head)
            watch.budget.begun = request.step
            given = Command(resume=dict(request.resume))
        while True:
            await self._stream(compiled, given, config, watch)
            is_held = context.holder is not None and context.holder.held
            if not (watch.interrupted or is_held):
                return ()
            where = config_for(request.thread_id)
            snapshot = await compiled.graph.aget_state(where, subgraphs=True)
            if is_held:
                return snapshot.next
            if context.gate_hits and questions.are_ordered:
                return snapshot.next
            answers = await questions.answers_to(snapshot)
            if not answers:
                return snapshot.next
            context.gate_hits.clear()
            watch.interrupted = False
            watch.replayed.clear()
            config["configurable"].pop(CONFIG_KEY_RESUMING, None)
            watch.budget.begun = watch.steps[""]
            given = Command(resume=answers)

    async def _stream(
        self, compiled: CompiledWorkflow, given: Any, config: RunnableConfig, watch: Watch
    ) -> None:
        """Runs the loop. Nothing is streamed: starts of tasks come by the callback in `config`.

        `durability="sync"`: with LangGraph's default a join node was silently skipped in 70 of 100
        runs, because a checkpoint was serialised after the next step had changed it.
        """
        stream = compiled.graph.astream(
            given, config, context=self._source.context, stream_mode=[], durability="sync"
        )
        async with aclosing(cast("AsyncGenerator[Any]", stream)) as events:
            try:
                async for _ in events:
                    pass
            except GraphRecursionError:
                # Names the limit of the whole path, not what was left of it.
                watch.budget.check(watch.steps[""])
                raise
        watch.budget.check(watch.steps[""])

    def _config(self, request: Advance, watch: Watch) -> RunnableConfig:
        store: Any = self._source.store
        if self._first_store is not None:
            content = self._first_store if request.store is None else request.store
            store = ExecutionStore(self._saver.serde, content)
            watch.observer.store_opened(store.changed)

        def task_seen(chunk: StreamChunk) -> None:
            self._task_seen(watch, chunk)

        configurable: dict[str, Any] = {
            "thread_id": request.thread_id,
            # Called in the loop as each super-step begins, before any body of it runs.
            CONFIG_KEY_STREAM: StreamProtocol(task_seen, {"tasks"}),
            CONFIG_KEY_RUNTIME: dataclasses.replace(DEFAULT_RUNTIME, store=store),
            **request.tags,
        }
        if request.input is None and not request.subgraphs_under_way and not request.resume:
            # A subgraph with a memory takes "resuming" for "go on": it would ignore its input.
            configurable[CONFIG_KEY_RESUMING] = False
        return {
            "configurable": configurable,
            "recursion_limit": self._recursion_limit,
            "run_name": request.trace.name or self._source.name or "LangGraph",
            "tags": list(request.trace.tags),
            "metadata": dict(request.trace.metadata),
        }

    def _task_seen(self, watch: Watch, chunk: StreamChunk) -> None:
        parts, _, event = chunk
        namespace = SEPARATOR.join(parts)
        level = watch.levels.get(path_of(namespace))
        if "triggers" not in event or level is None or event["name"] not in level.nodes:
            return
        if not namespace:
            watch.budget.check(watch.steps[""])
            watch.turn.give_up()
        prefix = path_of(namespace)
        name = event["name"]
        try:
            watch.observer.task_started(
                TaskStart(
                    task_id=event["id"],
                    node=f"{prefix}{SEPARATOR}{name}" if prefix else name,
                    namespace=namespace,
                    replayed=event["id"] in watch.replayed.get(namespace, ()),
                    opened=name in level.opened,
                )
            )
        except InfrastructureError as exc:
            watch.fault = watch.fault or exc
            raise

    def _gate_stop(
        self, thread: str, compiled: CompiledWorkflow, context: BodyContext, watch: Watch
    ) -> Stop:
        def head_of(namespace: str) -> CheckpointTuple | None:
            configurable = {"thread_id": thread, "checkpoint_ns": namespace}
            return self._saver.get_tuple({"configurable": configurable})

        reason = why_apart(context, compiled, watch, head_of, self._saver)
        paths = tuple(dict.fromkeys(hit.path for hit in context.gate_hits))
        return Stop(kind=StopKind.GATE, gates=paths, not_shareable=reason)

    def _variant(self, node: str, name: str) -> VariantSpec:
        found = self._variants.get((node, name))
        if found is None:
            names = [known for at, known in self._variants if at == node]
            raise NotFoundError(f"variant of node {node!r}", name, [ORIGINAL, *names])
        return found

    def _graph(
        self,
        choices: Mapping[str, str],
        gated: frozenset[str],
        mocked: frozenset[str] = frozenset(),
    ) -> CompiledWorkflow:
        """The graph with these choices and gates; compiled once for all cases."""
        replaced = (pair for pair in choices.items() if pair[1] != ORIGINAL)
        chosen = tuple(sorted(pair for pair in replaced if pair[0] not in gated))
        key = (chosen, gated, mocked)
        if key not in self._compiled:
            self._compiled[key] = self._compile(chosen, gated, mocked)
        return self._compiled[key]

    def _compile(
        self, chosen: tuple[tuple[str, str], ...], gated: frozenset[str], mocked: frozenset[str]
    ) -> CompiledWorkflow:
        choices = dict(chosen)

        def executor_of(path: str, variant: str) -> NodeExecutor:
            return self._executors.executor_of(path, variant, self.variant_fingerprint)

        parts = Parts(
            chosen={n: (v, self._variant(n, v).implementation) for n, v in chosen},
            gated=gated,
            mocked=mocked,
            executor_of=executor_of,
            fingerprint_of=lambda path, _: self.implementation_of(path, choices)[1],
        )
        options = {
            "checkpointer": self._saver,
            "store": self._source.store,
            "cache": self._source.cache,
            "name": self._source.name,
        }
        return compile_workflow(self._source.builder, parts, options)


async def _edit(compiled: CompiledWorkflow, request: Advance) -> None:
    """Changes the state by hand, as if the last node had returned that: a checkpoint of its own."""
    where = config_for(request.thread_id)
    try:
        await compiled.graph.aupdate_state(where, dict(request.edit or {}))
    except InvalidUpdateError as exc:
        raise _EditError(f"the state cannot be changed here: {exc}") from exc
