"""What becomes of a workspace when its execution has ended."""

from __future__ import annotations

from dataclasses import replace

from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.project import KeepWorkspaces


def is_kept(policy: KeepWorkspaces, status: ExecutionStatus) -> bool:
    """Whether people want to look at the folder of an execution that ended like this."""
    if policy == "failed":  # everything in a completed one is in the blob store
        return status is not ExecutionStatus.COMPLETED
    return policy == "always"


def settle_workspace(ended: Execution, workspace: Workspace, policy: KeepWorkspaces) -> Execution:
    """The execution with how its workspace was made, and whether it is kept.

    To be called before the end is recorded: a folder that is kept according to the ledger must not
    be an orphan, whenever the process dies. Removing is for afterwards.
    """
    if not workspace.is_made:
        return ended
    kept = is_kept(policy, ended.status)
    if kept:
        workspace.keep()
    marks = {"workspace": workspace.strategy, "workspace_kept": kept}
    return replace(ended, metadata={**ended.metadata, **marks})
