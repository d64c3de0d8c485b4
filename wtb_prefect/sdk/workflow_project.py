"""A workflow under test: its graph, its variants, its evaluators, and where its results live."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from wtb_prefect.domain.evaluation import EvaluatorSpec, Goal
from wtb_prefect.domain.identifiers import valid_name
from wtb_prefect.domain.node_result import CachedNode
from wtb_prefect.domain.project import (
    KEEP_CHECKPOINTS,
    KEEP_WORKSPACES,
    WORKSPACE_STRATEGIES,
    KeepCheckpoints,
    KeepWorkspaces,
    ProjectDefinition,
    ProjectLocations,
    WorkspaceStrategy,
)
from wtb_prefect.domain.remote_node import RemoteNode
from wtb_prefect.domain.workflow import ORIGINAL, VariantSpec
from wtb_prefect.errors import InvalidInputError, NotFoundError
from wtb_prefect.sdk.database_place import database_of
from wtb_prefect.sdk.locate_project import locate_project

F = TypeVar("F", bound=Callable[..., Any])


class WorkflowProject:
    """What a batch test needs to know of a workflow.

    Creating a project creates nothing on disk. Relative paths are taken from the folder that was
    current when the project was created.

    Args:
        name: identifies the project in its ledger.
        graph: a `StateGraph`, a compiled graph, a factory of either, or `"module:attribute"`.
        db_path: the ledger's SQLite file; the checkpoints live beside it. Default `.wtb/wtb.db`.
        database_url: the PostgreSQL database of ledger and checkpoints, instead of `db_path`:
            `postgresql://user@host/database`. Without either, the environment's `WTB_DATABASE_URL`
            counts. A password in it stays in this process; workers find theirs in `PGPASSWORD`,
            `~/.pgpass` or `WTB_DATABASE_URL`.
        output_dir: blobs, workspaces and reports. Default `.wtb/outputs`.
        workspace: a folder with the files every execution starts with.
        allowed_types: classes of your own that a state may hold and that the graph's schemas do
            not name; anything else is not rebuilt from a checkpoint.
        recursion_limit: super-steps an execution may take, as in LangGraph.
        context: the runtime context (LangGraph's `context=`) of every execution.
        cwd: `"workspace"` makes an execution's own workspace the current directory of its nodes and
            evaluators, for code that writes to relative paths. One stretch at a time then runs in a
            process: in parallel on Ray only. None leaves the current directory alone.
        transient: exceptions of your own that may be gone at the next attempt, besides timeouts,
            lost connections, status 429 and 5xx: the node that raised one is called again.
        keep_checkpoints: `"all"`, or `"last"`: at the end of a batch, of what only completed cells
            stand on, all but the last checkpoint of each execution goes.
        ignore_files: patterns as in a `.gitignore` of files in workspaces that are not recorded: a
            fork does not have them, and nothing removes them. `__pycache__/` always is one; a file
            `.wtbignore` in the base workspace adds more.
        blob_url: where contents of files are kept, if not below `output_dir`: a URL that fsspec
            knows, `s3://bucket/prefix` for example. Credentials come from the environment.
        keep_workspaces: whose folders stay when they end: `"failed"` (paused ones too), `"always"`
            or `"never"`. Whichever it is, all files are in the blob store.
        step_events: also tell Prefect of every node, checkpoint, commit and workspace; a batch has
            thousands of them.
        workspace_strategy: `"copy"` makes an execution's folder by copying; `"overlay"` mounts one
            over a copy that all executions with the same starting files share. That takes
            milliseconds, and Linux and root; a kept folder is gone when the machine restarts.

    Example:
        ```python
        project = WorkflowProject(name="rag", graph=build_graph)

        @project.variant("retrieve", "bm25")
        def retrieve_bm25(state): ...

        @project.evaluator
        def correct(state, expected) -> bool: ...
        ```
    """

    def __init__(  # noqa: PLR0913 - the front door: everything about a project in one place
        self,
        name: str,
        graph: Any = None,
        *,
        db_path: str | Path | None = None,
        database_url: str | None = None,
        output_dir: str | Path = ".wtb/outputs",
        workspace: str | Path | None = None,
        allowed_types: Sequence[type] = (),
        recursion_limit: int = 25,
        context: Any = None,
        cwd: Literal["workspace"] | None = None,
        transient: Sequence[type[BaseException]] = (),
        keep_checkpoints: KeepCheckpoints = "all",
        ignore_files: Sequence[str] = (),
        blob_url: str | None = None,
        keep_workspaces: KeepWorkspaces = "failed",
        step_events: bool = False,
        workspace_strategy: WorkspaceStrategy = "copy",
    ) -> None:
        if cwd not in (None, "workspace"):
            raise InvalidInputError(f"cwd is 'workspace' or None, not {cwd!r}")
        self.name = valid_name("project name", name)
        self.graph = graph
        self._database, self._checkpoints = database_of(db_path, database_url)
        self._output_dir = Path(output_dir).absolute()
        self._workspace = None if workspace is None else Path(workspace).absolute()
        self._allowed_types = tuple(allowed_types)
        self._recursion_limit = recursion_limit
        self._context = context
        self.cwd = cwd
        self._transient = tuple(transient)
        for kind in self._transient:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise InvalidInputError(f"transient names exception classes, not {kind!r}")
        _check_choice("keep_checkpoints", keep_checkpoints, KEEP_CHECKPOINTS)
        self._keep_checkpoints: KeepCheckpoints = keep_checkpoints
        if isinstance(ignore_files, str):
            raise InvalidInputError(f"ignore_files is a list of patterns: [{ignore_files!r}]")
        self._ignore_files = tuple(ignore_files)
        self._blob_url = None if blob_url is None else _checked_url(blob_url)
        _check_choice("keep_workspaces", keep_workspaces, KEEP_WORKSPACES)
        self._keep_workspaces: KeepWorkspaces = keep_workspaces
        self._step_events = step_events
        _check_choice("workspace_strategy", workspace_strategy, WORKSPACE_STRATEGIES)
        self._workspace_strategy: WorkspaceStrategy = workspace_strategy
        self._variants: dict[tuple[str, str], VariantSpec] = {}
        self._remote: dict[tuple[str, str | None], RemoteNode] = {}
        self._evaluators: dict[str, EvaluatorSpec] = {}
        self._cached: dict[tuple[str, str | None], CachedNode] = {}
        # Workers import the project again: remember where it was written.
        self._module = sys._getframe(1).f_globals.get("__name__", "__main__")

    @overload
    def variant(
        self,
        node: str,
        name: str,
        implementation: None = None,
        *,
        version: str | None = None,
        depends_on: Sequence[str | Path] = (),
    ) -> Callable[[F], F]: ...
    @overload
    def variant(
        self,
        node: str,
        name: str,
        implementation: F,
        *,
        version: str | None = None,
        depends_on: Sequence[str | Path] = (),
    ) -> F: ...
    def variant(
        self,
        node: str,
        name: str,
        implementation: F | None = None,
        *,
        version: str | None = None,
        depends_on: Sequence[str | Path] = (),
    ) -> F | Callable[[F], F]:
        """Registers an alternative implementation of a node, as a decorator or directly.

        Args:
            node: the node's name in the graph; inside a mounted subgraph its path, `outer|inner`.
            name: the variant's name; `original` is the graph's own implementation.
            implementation: anything LangGraph takes as a node.
            version: a text to change when something outside the code changes (a model, a prompt
                file); it also stands for captured objects whose value cannot be read.
            depends_on: files or folders whose content counts as part of the code.

        Raises:
            InvalidInputError: the name is taken, reserved, or not usable.
        """
        for part in node.split("|"):
            valid_name("node", part)
        valid_name("variant name", name)
        if name == ORIGINAL:
            raise InvalidInputError(f"{ORIGINAL!r} is the graph's own implementation of {node!r}")

        def register(function: F) -> F:
            if (node, name) in self._variants:
                raise InvalidInputError(f"node {node!r} has a variant {name!r} already")
            paths = tuple(str(Path(path).absolute()) for path in depends_on)
            self._variants[node, name] = VariantSpec(
                node=node, name=name, implementation=function, version=version, depends_on=paths
            )
            return function

        return register if implementation is None else register(implementation)

    def cached(self, node: str, reads: Sequence[str], variant: str | None = None) -> None:
        """Declares that a node gives the same result for equal code, state keys and files.

        It then runs once for each such combination, and its state writes and file changes are used
        again: in other cases and repeats, for other combinations, in other batches of the project.
        The node has to be deterministic. It may depend on nothing but its code (as for `variant`:
        declare a `version` or `depends_on` for what lies outside its module), the state keys it
        reads, and the files of its workspace, and may do nothing but return a value and change
        these files (a store that it writes to is not written again). If its code cannot be
        identified its results are used within their batch only. A node that runs beside others in
        a super-step simply runs.

        A node that takes the state as a dict sees only these keys, and asking for another one fails
        the cell; one that takes a pydantic model or a dataclass gets all of it, and reading an
        attribute that is not declared goes unnoticed.

        Args:
            node: the node's name in the graph; inside a mounted subgraph its path, `outer|inner`.
            reads: the state keys it reads; `[]` if it reads only files.
            variant: the implementation that is meant; None: all implementations of the node.

        Raises:
            InvalidInputError: declared already, or not usable as names. Names that the graph does
                not have are refused when the project is opened.
        """
        for part in node.split("|"):
            valid_name("node", part)
        if isinstance(reads, str):
            raise InvalidInputError(f"reads is a list of state keys: reads=[{reads!r}]")
        if (node, variant) in self._cached:
            which = node if variant is None else f"{node}={variant}"
            raise InvalidInputError(f"{which!r} is declared as cached already")
        self._cached[node, variant] = CachedNode(node=node, reads=tuple(reads), variant=variant)

    def remote(
        self,
        node: str,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
        variant: str | None = None,
    ) -> None:
        """Has a node's body run as a Ray task of its own, in another process; elsewhere in place.

        Args:
            node: the node's name in the graph.
            num_cpus: CPUs it holds while it runs.
            num_gpus: GPUs it holds.
            memory: bytes it holds.
            resources: resources of your own cluster, by name.
            variant: only this variant of it (`original`: the graph's own); None: all.

        Raises:
            InvalidInputError: declared twice, or an amount that is none.
        """
        valid_name("node", node)
        spec = RemoteNode(
            node=node,
            variant=variant,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=memory,
            resources=dict(resources or {}),
        )
        if (node, variant) in self._remote:
            raise InvalidInputError(f"node {node!r} is declared as remote already")
        amounts = [num_cpus, num_gpus, memory or 0, *spec.resources.values()]
        if not all(isinstance(a, (int, float)) and a >= 0 for a in amounts):
            raise InvalidInputError(f"remote node {node!r}: resources are numbers from 0 up")
        self._remote[node, variant] = spec

    @overload
    def evaluator(self, function: F) -> F: ...
    @overload
    def evaluator(
        self,
        *,
        name: str | None = None,
        goal: Goal = "max",
        primary: bool = False,
        version: str | None = None,
    ) -> Callable[[F], F]: ...
    def evaluator(
        self,
        function: F | None = None,
        *,
        name: str | None = None,
        goal: Goal = "max",
        primary: bool = False,
        version: str | None = None,
    ) -> F | Callable[[F], F]:
        """Registers an evaluator, bare (`@project.evaluator`) or with options.

        Its arguments are bound by name: `state`, `expected`, `case`, `execution`, `boundaries`,
        `workspace`. It returns a bool, a number, a text, or a dict of these (one metric a key).

        Args:
            name: the metric's name; default the function's.
            goal: whether more is better (`"max"`) or less (`"min"`).
            primary: the metric that decides which combination is best; at most one.
            version: a text to change when something outside the code changes.

        Raises:
            InvalidInputError: the name is taken, or a second primary evaluator.
        """

        def register(code: F) -> F:
            metric = valid_name("evaluator name", name or getattr(code, "__name__", ""))
            if metric in self._evaluators:
                raise InvalidInputError(f"there is an evaluator {metric!r} already")
            if goal not in ("max", "min"):
                raise InvalidInputError(f"the goal of {metric!r} is 'max' or 'min', not {goal!r}")
            if primary and any(known.primary for known in self._evaluators.values()):
                raise InvalidInputError(f"{metric!r} would be a second primary evaluator")
            self._evaluators[metric] = EvaluatorSpec(
                name=metric, function=code, goal=goal, primary=primary, version=version
            )
            return code

        return register if function is None else register(function)

    @property
    def locations(self) -> ProjectLocations:
        """Where this project keeps its things."""
        return ProjectLocations(
            database_url=self._database,
            checkpoints=self._checkpoints,
            output_dir=self._output_dir,
            workspace=self._workspace,
            blob_url=self._blob_url,
        )

    @property
    def import_path(self) -> str | None:
        """`module:attribute` (or `file.py:attribute`) under which a new process finds this project;
        None if it is not at the top level of a module."""
        return locate_project(self, self._module).import_path

    @property
    def unreachable_reason(self) -> str | None:
        """Why no new process can import this project; None if one can."""
        return locate_project(self, self._module).reason

    def definition(self, graph: Any = None) -> ProjectDefinition:
        """The project as plain values; `graph` replaces the project's own.

        Raises:
            InvalidInputError: neither has a graph, or the base workspace does not exist.
        """
        wanted = self.graph if graph is None else graph
        if wanted is None:
            raise InvalidInputError(f"project {self.name!r} has no graph: give it one (graph=...)")
        if self._workspace is not None and not self._workspace.is_dir():
            raise InvalidInputError(f"the base workspace {self._workspace} is not a folder")
        return ProjectDefinition(
            name=self.name,
            graph=wanted,
            import_path=self.import_path,
            variants=tuple(self._variants.values()),
            evaluators=tuple(self._evaluators.values()),
            locations=self.locations,
            allowed_types=self._allowed_types,
            recursion_limit=self._recursion_limit,
            cached=tuple(self._cached.values()),
            context=self._context,
            cwd=self.cwd,
            remote=tuple(self._remote.values()),
            transient=self._transient,
            keep_checkpoints=self._keep_checkpoints,
            ignore_files=self._ignore_files,
            keep_workspaces=self._keep_workspaces,
            step_events=self._step_events,
            workspace_strategy=self._workspace_strategy,
        )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise NotFoundError(f"value of {name}", str(value), choices)


def _checked_url(url: str) -> str:
    """A URL that may be shown; where things are is handed to workers and to Prefect."""
    scheme, found, rest = url.partition("://")
    if not found or not scheme or not rest:
        raise InvalidInputError(
            f"blob_url={url!r} is no URL: give one as s3://bucket/prefix; for a folder leave it "
            "out, and give output_dir"
        )
    if "@" in rest.partition("/")[0]:
        raise InvalidInputError(
            f"blob_url begins with {scheme}:// and names a user: credentials belong in the "
            "environment, because everybody who looks at a run sees this URL"
        )
    return url
