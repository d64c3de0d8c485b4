"""What user code finds around it: kept output, its own current directory, traces sent in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from wtb_prefect.domain.interfaces.surroundings import OutsideFiles
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.project import ProjectDefinition
from wtb_prefect.infrastructure.logs.capture import capturing
from wtb_prefect.infrastructure.logs.cell_logs import CellLog, CellLogs
from wtb_prefect.infrastructure.secrets import mask_secrets
from wtb_prefect.infrastructure.workflow.body_context import BodyContext, body_context
from wtb_prefect.infrastructure.workflow.node_executors import NodeCall, NodeExecutor
from wtb_prefect.infrastructure.workflow.tracing import flush_traces
from wtb_prefect.infrastructure.workspace.current_directory import (
    DirectoryWatch,
    go_to,
    working_in,
)


class ProcessSurroundings:
    """The surroundings in this process, for one project."""

    def __init__(self, project: ProjectDefinition) -> None:
        where = project.locations
        self._logs = CellLogs(where.output_dir / "logs")
        self._in_workspace = project.cwd == "workspace"
        # The output folder may be the current directory itself: then its parts are ours.
        parts = [where.output_dir / name for name in ("blobs", "workspaces", "logs", "prefect")]
        self._own = (
            where.ledger_file,
            where.checkpoints,
            where.output_dir,
            where.workspace,
            *parts,
        )

    def log_of(self, thread_id: str) -> CellLog:
        """The log of the execution that runs on a thread."""
        return self._logs.of(thread_id.removeprefix("wtb-"))

    def mask(self, text: str) -> str:
        """See `Surroundings.mask`."""
        return mask_secrets(text)

    @contextmanager
    def chunk(self) -> Iterator[OutsideFiles]:
        """See `Surroundings.chunk`."""
        own = [path for path in self._own if path is not None]
        watch: OutsideFiles = _NoFiles() if self._in_workspace else DirectoryWatch(own)
        with capturing():
            yield watch
        flush_traces()

    @contextmanager
    def bodies(self, context: BodyContext) -> Iterator[None]:
        """Around a stretch of a graph, whose bodies already see `context`."""
        try:
            with self._directory(context.workspace):
                yield
        finally:
            if context.log is not None:
                context.log.flush()

    @contextmanager
    def evaluator(self, execution_id: str, workspace: Workspace, name: str) -> Iterator[None]:
        """See `Surroundings.evaluator`."""
        log = self._logs.of(execution_id)
        context = BodyContext(workspace, log=log, label=f"evaluator {name}")
        token = body_context.set(context)
        try:
            with self.bodies(context):
                yield
        finally:
            body_context.reset(token)

    def executor(self, inner: NodeExecutor) -> NodeExecutor:
        """An executor whose nodes begin in their workspace, if the project wants that."""
        return _InWorkspace(inner) if self._in_workspace else inner

    def _directory(self, workspace: Workspace) -> AbstractContextManager[None]:
        return working_in(workspace.path()) if self._in_workspace else nullcontext()


class _InWorkspace:
    """Has every body begin in its workspace, wherever the one before went. The directory is
    given back once, after the stretch: siblings run at the same time."""

    def __init__(self, inner: NodeExecutor) -> None:
        self._inner = inner

    async def execute(self, call: NodeCall) -> object:
        """See `NodeExecutor.execute`."""
        go_to(body_context.get().workspace.path())
        return await self._inner.execute(call)


class _NoFiles:
    def found(self) -> Sequence[str]:
        return ()
