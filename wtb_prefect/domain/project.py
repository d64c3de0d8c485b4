"""A project as the application needs it: plain values, whatever object the user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from wtb_prefect.domain.evaluation import EvaluatorSpec
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.node_result import CachedNode
from wtb_prefect.domain.remote_node import RemoteNode
from wtb_prefect.domain.workflow import VariantSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLocations:
    """Where a project keeps its things; all paths absolute."""

    database_url: str
    """The ledger's, without a password: this travels to workers and is shown."""
    checkpoints: Path | None
    """The file of the checkpoints; None: they are in the ledger's database."""
    output_dir: Path
    workspace: Path | None
    blob_url: str | None = None
    """Where contents of files are, if not below `output_dir`."""

    @property
    def ledger_file(self) -> Path | None:
        """The ledger's own file, if it is one."""
        path = self.database_url.removeprefix("sqlite:///")
        return None if path == self.database_url else Path(path)

    def to_json(self) -> dict[str, str | None]:
        """As JSON values, to be handed to another process."""
        return {
            "database_url": self.database_url,
            "checkpoints": None if self.checkpoints is None else str(self.checkpoints),
            "output_dir": str(self.output_dir),
            "workspace": None if self.workspace is None else str(self.workspace),
            "blob_url": self.blob_url,
        }

    @staticmethod
    def from_json(data: Mapping[str, str | None]) -> ProjectLocations:
        """From what `to_json` gave."""
        checkpoints, workspace = data["checkpoints"], data["workspace"]
        return ProjectLocations(
            database_url=str(data["database_url"]),
            checkpoints=None if checkpoints is None else Path(checkpoints),
            output_dir=Path(str(data["output_dir"])),
            workspace=None if workspace is None else Path(workspace),
            blob_url=data.get("blob_url"),
        )


ALWAYS_IGNORED = ("__pycache__/",)
"""Only what no result can depend on: a fork would miss anything else that a node has written."""

KeepCheckpoints = Literal["all", "last"]
KEEP_CHECKPOINTS: tuple[KeepCheckpoints, ...] = get_args(KeepCheckpoints)
KeepWorkspaces = Literal["failed", "always", "never"]
KEEP_WORKSPACES: tuple[KeepWorkspaces, ...] = get_args(KeepWorkspaces)
WorkspaceStrategy = Literal["copy", "overlay"]
WORKSPACE_STRATEGIES: tuple[WorkspaceStrategy, ...] = get_args(WorkspaceStrategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectDefinition:
    """Graph, variants, evaluators and locations of one project."""

    name: str
    graph: Any
    import_path: str | None
    variants: tuple[VariantSpec, ...]
    evaluators: tuple[EvaluatorSpec, ...]
    locations: ProjectLocations
    allowed_types: tuple[type, ...] = ()
    recursion_limit: int = 25
    cached: tuple[CachedNode, ...] = ()
    context: Any = None
    cwd: str | None = None
    remote: tuple[RemoteNode, ...] = ()
    transient: tuple[type[BaseException], ...] = ()
    keep_checkpoints: KeepCheckpoints = "all"
    ignore_files: tuple[str, ...] = ()
    keep_workspaces: KeepWorkspaces = "failed"
    step_events: bool = False
    workspace_strategy: WorkspaceStrategy = "copy"

    @property
    def workflow_id(self) -> str:
        """See `workflow_id_of`."""
        return workflow_id_of(self.name)


def workflow_id_of(project_name: str) -> str:
    """The same in every process, so that a project is registered once."""
    return stable_id("workflow", project_name)
