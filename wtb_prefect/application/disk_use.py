"""What each batch takes on disk, and what all of them take together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wtb_prefect.application.stores import OpenStores
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.checkpoint import StoreSpace
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import BlobId, thread_id


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """Bytes by what they are for. A content of several files is counted once."""

    checkpoints: int = 0
    files: int = 0
    workspaces: int = 0
    logs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectDiskUse:
    """By batch, and in all. What several batches share is in each of them, and once in `total`.

    `space` is the checkpoint file itself: its free part is used again before it grows.
    """

    batches: dict[str, DiskUse]
    total: DiskUse
    space: StoreSpace


def read_disk_use(workflow_id: str, stores: OpenStores) -> ProjectDiskUse:
    """Measures every batch of a project. Executions that answer cells of other batches too are
    counted with the batch they were run for."""
    batches: dict[str, DiskUse] = {}
    contents: dict[BlobId, int] = {}
    with stores.open_uow() as uow:
        found = [
            (b.batch_id, uow.executions.list(batch_id=b.batch_id))
            for b in uow.batch_tests.list(workflow_id)
        ]
        for batch_id, executions in found:
            blobs = uow.file_commits.blobs(batch_id)
            contents.update(blobs)
            batches[batch_id] = disk_use_of(executions, stores, files=sum(blobs.values()))
    return ProjectDiskUse(
        batches=batches,
        total=DiskUse(
            checkpoints=sum(use.checkpoints for use in batches.values()),
            files=sum(contents.values()),
            workspaces=sum(use.workspaces for use in batches.values()),
            logs=sum(use.logs for use in batches.values()),
        ),
        space=stores.checkpoints.space(),
    )


def disk_use_of(executions: Sequence[Execution], stores: OpenStores, files: int = 0) -> DiskUse:
    """What executions take, whose files take `files`."""
    threads = [thread_id(execution.execution_id) for execution in executions]
    return DiskUse(
        checkpoints=sum(stores.checkpoints.sizes(threads).values()),
        files=files,
        # Most completed executions' folders are gone: what was in them is kept as contents.
        workspaces=sum(
            stores.workspaces.size(execution.execution_id, label_of(execution))
            for execution in executions
            if execution.status is not ExecutionStatus.COMPLETED
            or execution.metadata.get("workspace_kept")
        ),
        logs=sum(stores.logs.size(execution.execution_id) for execution in executions),
    )
