"""Nodes whose bodies run in another process: what travels there, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import pickle
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph._internal._constants import CONFIG_KEY_RUNTIME, CONFIG_KEY_SCRATCHPAD
from langgraph.errors import GraphInterrupt
from langgraph.pregel._utils import find_subgraph_pregel
from langgraph.runtime import Runtime

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.domain.interfaces.remote_calls import RemoteCalls
from wtb_prefect.domain.remote_node import RemoteNode
from wtb_prefect.domain.workflow import ORIGINAL, VariantSpec
from wtb_prefect.errors import GraphError, InfrastructureError, NotFoundError, WTBError
from wtb_prefect.infrastructure.workflow.body_context import BodyContext, body_context
from wtb_prefect.infrastructure.workflow.graph_source import GraphSource
from wtb_prefect.infrastructure.workflow.node_executors import NodeCall, NodeExecutor
from wtb_prefect.infrastructure.workflow.node_swap import implementation_of

_PLAIN = (str, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, slots=True)
class PackedCall:
    """A call of a node as it travels: values only, nothing of LangGraph's loop."""

    state: Any
    context: Any
    configurable: Mapping[str, Any]
    metadata: Mapping[str, Any]
    tags: Sequence[str]
    workspace: str


@dataclasses.dataclass(frozen=True, slots=True)
class PackedAnswer:
    """What became of it. `error` holds the exception as bytes if it can travel; `printed` are the
    lines it wrote to stdout and stderr."""

    value: Any = None
    error: bytes | None = None
    kind: str = ""
    message: str = ""
    trace: str = ""
    printed: str = ""


class RemoteNodes:
    """The nodes declared as remote, and where their bodies run (None: in their place)."""

    def __init__(self, declared: Sequence[RemoteNode], calls: RemoteCalls | None) -> None:
        self._declared = {(spec.node, spec.variant): spec for spec in declared}
        self._calls = calls

    def wrap(self, inner: NodeExecutor, node: str, variant: str) -> NodeExecutor:
        """The executor of a node that calls its body elsewhere, if it is declared as remote."""
        spec = self._declared.get((node, variant)) or self._declared.get((node, None))
        if spec is None or self._calls is None:
            return inner
        return RemoteNodeExecutor(inner, spec, variant, self._calls)


class RemoteNodeExecutor:
    """Calls a node's body in another process, and all else about the call as it is called here."""

    def __init__(
        self, inner: NodeExecutor, spec: RemoteNode, variant: str, calls: RemoteCalls
    ) -> None:
        self._inner = inner
        self._spec = spec
        self._variant = variant
        self._calls = calls

    async def execute(self, call: NodeCall) -> Any:
        """See `NodeExecutor.execute`."""
        config = call.config

        async def elsewhere(state: Any) -> Any:
            return await self._call(state, config)

        return await self._inner.execute(dataclasses.replace(call, proceed=elsewhere))

    async def _call(self, state: Any, config: RunnableConfig) -> Any:
        context = body_context.get()
        folder = await asyncio.to_thread(context.workspace.path)
        payload = _packed(self._spec.node, _call_of(state, config, folder))
        try:
            answer = await self._calls.call(self._spec, self._variant, payload)
        except InfrastructureError as exc:
            # No fault of the workflow, which retry policies and error handlers must not see: like
            # a gate it stops the run, with nothing stored for the node.
            context.fault = exc
            raise GraphInterrupt(()) from exc
        return _unpacked(answer)


def run_packed(node: str, runnable: Any, payload: bytes, *, in_workspace: bool = False) -> bytes:
    """Runs a node's runnable in this process; the other end of `RemoteNodeExecutor`.

    `in_workspace`: with its workspace as the current directory.
    """
    call: PackedCall = pickle.loads(payload)  # noqa: S301 - from the process that asked for this
    out = io.StringIO()
    config = _config_of(call)
    token = body_context.set(BodyContext(_FolderHere(Path(call.workspace))))
    # What LangGraph's `get_config()` and `interrupt()` look at.
    config_token = var_child_runnable_config.set(config)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(out))
            if in_workspace:
                stack.enter_context(contextlib.chdir(call.workspace))
            value = asyncio.run(runnable.ainvoke(call.state, config))
        return _packed(node, PackedAnswer(value=value, printed=out.getvalue()))
    except Exception as exc:  # noqa: BLE001 - the node is user code; what it raised goes back
        return _packed(node, _failed(exc, out.getvalue()))
    finally:
        var_child_runnable_config.reset(config_token)
        body_context.reset(token)


def check_remote(
    declared: Sequence[RemoteNode], source: GraphSource, variants: Sequence[VariantSpec]
) -> None:
    """Refuses what cannot run in another process.

    Raises:
        NotFoundError: an unknown node or variant.
        GraphError: a node that is a graph, or that takes the graph's store.
    """
    nodes = source.builder.nodes
    for spec in declared:
        if spec.node not in nodes:
            raise NotFoundError("node to run remotely", spec.node, nodes)
        known = [ORIGINAL, *(v.name for v in variants if v.node == spec.node)]
        if spec.variant is not None and spec.variant not in known:
            raise NotFoundError(f"variant of node {spec.node!r}", spec.variant, known)
        for name in known if spec.variant is None else [spec.variant]:
            _check_runnable(spec, remote_runnable(source, variants, spec.node, name))


def remote_runnable(
    source: GraphSource, variants: Sequence[VariantSpec], node: str, variant: str
) -> Any:
    """What LangGraph calls for a variant of a node."""
    if variant == ORIGINAL:
        return source.builder.nodes[node].runnable
    found = next(v for v in variants if (v.node, v.name) == (node, variant))
    return implementation_of(source.builder, node, found.implementation)


def _check_runnable(spec: RemoteNode, runnable: Any) -> None:
    if find_subgraph_pregel(runnable) is not None:
        raise GraphError(f"node {spec.node!r} has a graph inside, which cannot run elsewhere")
    if "store" in getattr(runnable, "func_accepts", {}):
        raise GraphError(f"node {spec.node!r} takes the graph's store, which stays in its process")


class _FolderHere:
    """The workspace of an execution that another process runs: its folder, nothing more."""

    is_made = True
    strategy: str | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self) -> Path:
        return self._folder

    def replay(self, changed: Any, removed: Any, after: Mapping[str, FileMemento]) -> None:
        raise WTBError("files are replayed where the execution runs")

    def put_back(self) -> FileSnapshot | None:
        raise WTBError("files are put back where the execution runs")

    def snapshot(self) -> FileSnapshot | None:
        return None

    def keep(self) -> None:
        """Whoever made the folder keeps it."""

    def remove(self) -> None:
        """Whoever made the folder removes it."""


class _NoInterrupts:
    """In the place of LangGraph's bookkeeping of `interrupt()`, which stays with the graph."""

    def interrupt_counter(self) -> NoReturn:
        raise WTBError("interrupt() was called in a remote node; ask in a node that is not remote")


class RemoteTraceback(Exception):
    """The traceback of the other process, shown as the cause of what was raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def _call_of(state: Any, config: RunnableConfig, folder: Path) -> PackedCall:
    configurable = config.get("configurable", {})
    runtime = configurable.get(CONFIG_KEY_RUNTIME)
    return PackedCall(
        state=state,
        context=getattr(runtime, "context", None),
        configurable={
            key: value
            for key, value in configurable.items()
            if not key.startswith("__") and isinstance(value, _PLAIN)
        },
        metadata={k: v for k, v in config.get("metadata", {}).items() if isinstance(v, _PLAIN)},
        tags=config.get("tags") or [],
        workspace=str(folder),
    )


def _config_of(call: PackedCall) -> RunnableConfig:
    return {
        "configurable": {
            **call.configurable,
            CONFIG_KEY_RUNTIME: Runtime(context=call.context),
            CONFIG_KEY_SCRATCHPAD: _NoInterrupts(),
        },
        "metadata": dict(call.metadata),
        "tags": list(call.tags),
    }


def _packed(node: str, thing: PackedCall | PackedAnswer) -> bytes:
    try:
        return pickle.dumps(thing)
    except Exception as exc:  # whatever the values' own reducers raise
        what = "its state" if isinstance(thing, PackedCall) else "what it returned"
        problem = GraphError(f"remote node {node!r}: {what} cannot travel: {exc}")
        if isinstance(thing, PackedCall):
            raise problem from exc
        return pickle.dumps(_failed(problem, thing.printed))


def _failed(exc: Exception, printed: str) -> PackedAnswer:
    trace = "".join(traceback.format_exception(exc))
    return PackedAnswer(
        error=_travelling(exc),
        kind=type(exc).__name__,
        message=str(exc),
        trace=trace,
        printed=printed,
    )


def _travelling(exc: Exception) -> bytes | None:
    """The exception as bytes, if it is still itself on the other side."""
    try:
        data = pickle.dumps(exc)
        same = str(pickle.loads(data)) == str(exc)  # noqa: S301 - made in the line above
    except Exception:  # noqa: BLE001 - exceptions of users have constructors of every kind
        return None
    return data if same else None


def _unpacked(data: bytes) -> Any:
    answer: PackedAnswer = pickle.loads(data)  # noqa: S301 - from the process that was asked
    if answer.printed:
        sys.stdout.write(answer.printed)
    if not answer.kind:
        return answer.value
    error: Exception
    if answer.error is not None:
        error = pickle.loads(answer.error)  # noqa: S301 - as above
    else:  # same name and text, so that reports say what happened
        error = type(answer.kind, (Exception,), {})(answer.message)
    raise error from RemoteTraceback(answer.trace)
