"""The folders executions work in."""

from wtb_prefect.infrastructure.workspace.folders import FolderWorkspaces

__all__ = ["FolderWorkspaces"]
