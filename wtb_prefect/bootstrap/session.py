"""A project with all its stores open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from wtb_prefect.application.evaluate import check_evaluator
from wtb_prefect.application.session import Session
from wtb_prefect.bootstrap.blobs import open_blobs
from wtb_prefect.bootstrap.stores import open_databases, open_workspaces
from wtb_prefect.domain.events import Tell, tell_nobody
from wtb_prefect.domain.interfaces.remote_calls import RemoteCalls
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.project import ProjectDefinition
from wtb_prefect.domain.workflow import TestWorkflow
from wtb_prefect.errors import NotFoundError
from wtb_prefect.infrastructure.checkpoints.case_codec import MsgpackCaseCodec
from wtb_prefect.infrastructure.checkpoints.langgraph_store import LangGraphCheckpointStore
from wtb_prefect.infrastructure.checkpoints.serializer import make_serializer
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork
from wtb_prefect.infrastructure.file_tracking.ignored_files import ignored_files
from wtb_prefect.infrastructure.file_tracking.tracker import LocalFileTracker
from wtb_prefect.infrastructure.system_clock import SystemClock
from wtb_prefect.infrastructure.workflow import inspect_graph
from wtb_prefect.infrastructure.workflow.cached_nodes import CachedNodes, declared_nodes
from wtb_prefect.infrastructure.workflow.engine import LangGraphEngine
from wtb_prefect.infrastructure.workflow.execution_store import content_of, is_copyable
from wtb_prefect.infrastructure.workflow.executor_chain import ExecutorChain
from wtb_prefect.infrastructure.workflow.fingerprint import fingerprint_code
from wtb_prefect.infrastructure.workflow.graph_source import (
    GraphSource,
    load_attribute,
    resolve_graph,
)
from wtb_prefect.infrastructure.workflow.node_executors import AroundExecutor
from wtb_prefect.infrastructure.workflow.remote_nodes import RemoteNodes, check_remote
from wtb_prefect.infrastructure.workflow.result_cache import ResultCache
from wtb_prefect.infrastructure.workflow.surroundings import ProcessSurroundings


@contextmanager
def open_session(
    project: ProjectDefinition,
    tell: Tell = tell_nobody,
    remote_calls: RemoteCalls | None = None,
    around: AroundExecutor | None = None,
) -> Iterator[Session]:
    """A project with its graph checked and its stores open; closes what it opened.

    `tell` is told what happens. Bodies of remote nodes run through `remote_calls`, without it in
    their place. `around` is put around the executor of every node.

    Raises:
        NotFoundError, GraphError, InvalidInputError: the project cannot be run as it is, or not on
            this machine.
        LedgerError, CheckpointError, FileTrackingError: a store cannot be opened.
    """
    graph = _checked(project)
    where, surroundings = project.locations, ProcessSurroundings(project)
    ignored = ignored_files(project.ignore_files, where.workspace)
    with open_databases(where, graph.serializer) as (database, checkpoints):
        open_uow = partial(SqlAlchemyUnitOfWork, database, tell=tell)
        chain = partial(
            ExecutorChain,
            surroundings=surroundings,
            remote=RemoteNodes(project.remote, remote_calls),
            around=around,
        )
        engine = _engine(project, graph, checkpoints, open_uow, chain)
        blobs = open_blobs(where)
        tracker = LocalFileTracker(blobs, ignored)
        yield Session(
            project=project,
            engine=engine,
            open_uow=open_uow,
            checkpoints=checkpoints,
            tracker=tracker,
            workspaces=open_workspaces(
                where, blobs, tracker, tell, strategy=project.workspace_strategy
            ),
            codec=MsgpackCaseCodec(graph.serializer),
            clock=SystemClock(),
            tell=tell,
            resolve=load_attribute,
            fingerprint=fingerprint_code,
            surroundings=surroundings,
            evaluator_fingerprints={
                spec.name: fingerprint_code(spec.function, spec.version)
                for spec in project.evaluators
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """A project's graph, checked; `store` is the content of its store at the start, if it has one
    that can be copied."""

    source: GraphSource
    serializer: JsonPlusSerializer
    store: bytes | None
    workflow: TestWorkflow
    cached: CachedNodes


def _checked(project: ProjectDefinition) -> _Graph:
    source = replace(resolve_graph(project.graph), context=project.context)
    variants = [spec.implementation for spec in project.variants]
    allowed = inspect_graph.allowed_types(source.builder, variants, project.allowed_types)
    serializer = make_serializer(allowed)
    store = content_of(source.store, serializer) if is_copyable(source.store) else None
    workflow = inspect_graph.describe(
        source, project.workflow_id, project.name, project.import_path, store
    )
    for variant in project.variants:
        if variant.node not in workflow.node_names():
            raise NotFoundError("node", variant.node, workflow.node_names())
    check_remote(project.remote, source, project.variants)
    for evaluator in project.evaluators:
        check_evaluator(evaluator)
    return _Graph(
        source=source,
        serializer=serializer,
        store=store,
        workflow=workflow,
        cached=declared_nodes(source.builder, project.cached, project.variants),
    )


def _engine(
    project: ProjectDefinition,
    graph: _Graph,
    checkpoints: LangGraphCheckpointStore,
    open_uow: OpenUnitOfWork,
    chain: Callable[..., ExecutorChain],
) -> LangGraphEngine:
    cache = ResultCache(
        project.workflow_id,
        graph.cached,
        inspect_graph.surroundings(graph.source, graph.store),
        graph.serializer,
        open_uow,
        project.locations.output_dir / "locks",
    )
    checkpoints.deltas_of = partial(inspect_graph.delta_channels, graph.source.builder)
    engine = LangGraphEngine(
        graph.source,
        graph.workflow,
        project.variants,
        checkpoints,
        chain(cache=cache),
        project.recursion_limit,
        project.transient,
    )
    engine.check()
    return engine
