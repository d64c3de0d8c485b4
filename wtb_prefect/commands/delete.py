"""`wtb delete`: a whole batch, or only the checkpoints that its results can do without."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from wtb_prefect import terminal
from wtb_prefect.application.delete_batch import Deletion, delete_batch, plan_deletion
from wtb_prefect.application.disk_use import DiskUse, disk_use_of
from wtb_prefect.application.prune_checkpoints import Pruning, plan_pruning, prune_batch
from wtb_prefect.application.read_results import find_batch
from wtb_prefect.application.stores import OpenStores
from wtb_prefect.bootstrap.stores import open_stores
from wtb_prefect.commands.confirming import confirmed
from wtb_prefect.commands.look import need_ledger
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import find_project
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.infrastructure.processes import is_alive, this_process

_LOOK = "--dry-run to look"

_WORTH = 10
"""The checkpoint file is written anew when a tenth of it is free: that takes as long as copying."""


def delete(args: Namespace, out: Output) -> int:
    """Says what would go, asks, and deletes."""
    project = find_project(args.project)
    with need_ledger(project) as open_uow, open_uow() as uow:
        batch_id = find_batch(uow, project.workflow_id, args.batch).batch_id
    with open_stores(project.locations) as stores:
        if args.checkpoints:
            return _checkpoints(batch_id, args, stores, out)
        return _batch(batch_id, args, stores, out)


def _batch(batch_id: str, args: Namespace, stores: OpenStores, out: Output) -> int:
    found = plan_deletion(batch_id, is_alive, stores)
    use = disk_use_of(found.gone, stores)
    for line in _deletion_lines(found, use):
        out.say(line)
    document = _deletion_document(found, use)
    if args.dry_run or not confirmed(args, f"delete batch {batch_id}?", _LOOK):
        out.data({**document, "deleted": False})
        return 0
    delete_batch(batch_id, this_process(), is_alive, stores)
    out.say("deleted")
    out.data({**document, "deleted": True, **_give_back(stores, out)})
    return 0


def _checkpoints(batch_id: str, args: Namespace, stores: OpenStores, out: Output) -> int:
    found = plan_pruning(batch_id, is_alive, stores)
    before = _bytes(found, stores)
    out.say(
        f"batch {batch_id}: the checkpoints of {len(found.trunks)} trunks, and all but the last "
        f"of {len(found.leaves)} executions that ended ({terminal.bytes_text(before)} now)"
    )
    document = {"batch_id": batch_id, "trunks": len(found.trunks), "leaves": len(found.leaves)}
    if args.dry_run or not confirmed(args, f"remove these checkpoints of batch {batch_id}?", _LOOK):
        out.data({**document, "bytes": before, "removed": False})
        return 0
    removed = before - _bytes(prune_batch(batch_id, is_alive, stores), stores)
    out.say(f"removed: {terminal.bytes_text(removed)}")
    out.data({**document, "bytes": removed, "removed": True, **_give_back(stores, out)})
    return 0


def _bytes(found: Pruning, stores: OpenStores) -> int:
    executions = (*found.trunks, *found.leaves)
    threads = [thread_id(execution.execution_id) for execution in executions]
    return sum(stores.checkpoints.sizes(threads).values())


def _give_back(stores: OpenStores, out: Output) -> dict[str, Any]:
    """Free space back to the file system, or where it is and why."""
    before = stores.checkpoints.space()
    reason: str | None = "too little of the file is free"
    if before.free * _WORTH >= before.on_disk:
        reason = stores.checkpoints.compact()
    after = stores.checkpoints.space()
    given = max(before.on_disk - after.on_disk, 0)
    if reason is None:
        out.say(f"the checkpoint file is {terminal.bytes_text(given)} smaller")
    elif after.free:
        free = terminal.bytes_text(after.free)
        out.say(f"{free} are free inside the checkpoint file, to be used again ({reason})")
    return {"given_back": given, "free_inside": after.free}


def _deletion_lines(found: Deletion, use: DiskUse) -> Iterable[str]:
    executions = len(found.gone)
    yield (
        f"batch {found.batch.batch_id} of {found.batch.name}: {found.cells} cells, "
        f"{found.cases} cases, {executions} executions"
    )
    yield (
        f"  checkpoints {terminal.bytes_text(use.checkpoints)}, "
        f"workspaces {terminal.bytes_text(use.workspaces)}, logs {terminal.bytes_text(use.logs)}"
    )
    if found.kept:
        yield f"  {len(found.kept)} executions stay: other batches or runs stand on them"
    yield "  contents of files stay (`wtb gc` removes those that nothing names)"


def _deletion_document(found: Deletion, use: DiskUse) -> dict[str, Any]:
    return {
        "batch_id": found.batch.batch_id,
        "cells": found.cells,
        "cases": found.cases,
        "executions": len(found.gone),
        "kept": len(found.kept),
        "bytes": {"checkpoints": use.checkpoints, "workspaces": use.workspaces, "logs": use.logs},
    }
