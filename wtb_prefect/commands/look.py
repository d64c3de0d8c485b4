"""`wtb list`, `results`, `history`, `state` and `files`: reading, without running anything."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pprint import pformat
from typing import Any

from rich.text import Text

from wtb_prefect import terminal
from wtb_prefect.application.compare_files import FileDifference, compare_files
from wtb_prefect.application.disk_use import ProjectDiskUse, read_disk_use
from wtb_prefect.application.read_history import find_execution, read_files, read_history
from wtb_prefect.application.read_results import BatchReport, find_batch, read_report
from wtb_prefect.application.read_self_check import self_check_lines
from wtb_prefect.bootstrap.files import open_tracker
from wtb_prefect.bootstrap.ledger import open_ledger
from wtb_prefect.commands.choosing import recorded_choice
from wtb_prefect.commands.documents import batch_document, report_document
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import find_project, load_project
from wtb_prefect.domain.batch_test import BatchStatus, BatchTest, VariantCombination
from wtb_prefect.domain.checkpoint import Checkpoint, ExecutionHistory
from wtb_prefect.domain.execution import ExecutionKind
from wtb_prefect.domain.file_processing import FileMemento
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.project import ProjectDefinition
from wtb_prefect.errors import InvalidInputError, NotFoundError
from wtb_prefect.infrastructure.processes import is_alive


def list_batches(args: Namespace, out: Output) -> int:
    """The batches of a project, newest first."""
    project = find_project(args.project)
    if args.runs:
        return _list_runs(project, out)
    with open_ledger(project.locations.database_url) as open_uow:
        if open_uow is None:
            found = []
        else:
            with open_uow() as uow:
                batches = uow.batch_tests.list(project.workflow_id)
                found = [(batch, uow.cells.count(batch.batch_id)) for batch in batches]
    use = _disk_use(project) if args.disk and found else None
    sizes = ("checkpoints", "files", "workspaces", "logs") if use else ()
    table = terminal.make_table("batch", "status", "cells", "when", "runner", *sizes)
    for batch, counts in found:
        table.add_row(
            batch.batch_id,
            _standing(batch),
            terminal.counts_line((status.value, n) for status, n in sorted(counts.items())),
            terminal.when(batch.started_at or batch.created_at),
            batch.runner or "",
            *(terminal.disk_columns(use.batches[batch.batch_id]) if use else ()),
        )
    if use:
        table.add_row("in all", "", "", "", "", *terminal.disk_columns(use.total))
    if found:
        out.show(table)
        if use:
            out.say(terminal.space_line(use.space))
    else:
        out.say(f"project {project.name} has no batch yet")
    documents = [batch_document(b, counts, owner_alive=_owner_alive(b)) for b, counts in found]
    if use:
        documents = [{**d, "disk": use.batches[d["batch_id"]]} for d in documents]
    out.data(documents)
    return 0


def _list_runs(project: ProjectDefinition, out: Output) -> int:
    """The single executions of a project, newest first."""
    with open_ledger(project.locations.database_url) as open_uow:
        found = []
        if open_uow is not None:
            with open_uow() as uow:
                every = uow.executions.list(workflow_id=project.workflow_id)
            found = [e for e in reversed(every) if e.kind is ExecutionKind.RUN]
    table = terminal.make_table("execution", "status", "next", "variants", "when")
    for execution in found:
        left = "" if "abandoned_by" not in execution.metadata else " (left behind)"
        table.add_row(
            execution.execution_id,
            terminal.status_text(execution.status).append(left),
            ", ".join(execution.next_nodes),
            VariantCombination.of(execution.choices).name,
            terminal.when(execution.created_at),
        )
    if found:
        out.show(table)
    else:
        out.say(f"project {project.name} has no single execution yet: wtb run --state starts one")
    out.data(found)
    return 0


def results(args: Namespace, out: Output) -> int:
    """The comparison of a batch, or its cells."""
    project = find_project(args.project)
    with need_ledger(project) as open_uow:
        with open_uow() as uow:
            if args.batch is None and not uow.batch_tests.list(project.workflow_id):
                raise _nothing_run(project)
            batch = find_batch(uow, project.workflow_id, args.batch)
        choice = recorded_choice(args, open_uow, batch.batch_id)
        report = read_report(open_uow, batch.batch_id, choice=choice)
    out.say(f"batch {batch.batch_id} of {batch.name}: {_standing(batch).plain}")
    if choice is not None:
        out.say(f"only the {len(report.cells)} cells asked for:")
    _show_report(report, args, out)
    out.data(report_document(report, cells=args.cells_too))
    return 0


def history(args: Namespace, out: Output) -> int:
    """The checkpoints behind an execution, oldest first."""
    with need_ledger(find_project(args.project)) as open_uow:
        found = _history(open_uow, args)
    shown = found.checkpoints
    if args.at is not None:
        shown = shown[: shown.index(find_checkpoint(found, args.at)) + 1]
    table = terminal.make_table("step", "completed", "next", "checkpoint", "when")
    for point in shown:
        table.add_row(
            str(point.step),
            Text(", ".join(point.nodes)),
            Text(", ".join(point.next)),
            point.checkpoint_id,
            terminal.when(point.created_at),
        )
    out.say(f"execution {found.execution_id}")
    out.show(table)
    left = _left_behind(args, found.execution_id)
    for kept_id in left:
        out.say(f"left behind when it was rolled back: {kept_id}")
    out.data({"execution_id": found.execution_id, "checkpoints": shown, "left_behind": left})
    return 0


def state(args: Namespace, out: Output) -> int:
    """The values of the state now, or at a checkpoint."""
    project = load_project(args.project)
    with need_ledger(find_project(args.project)) as open_uow:
        found = _history(open_uow, args)
        at, other = (
            None if asked is None else find_any_checkpoint(open_uow, found, asked)
            for asked in (args.at, args.diff)
        )
    # The bench brings LangGraph along, which only this command needs for looking.
    from wtb_prefect.sdk.test_bench import TestBench  # noqa: PLC0415

    with TestBench(project) as bench:
        if args.diff is not None:
            return _show_state_difference(bench.diff(found.execution_id, other, at).state, out)
        values = bench.state(found.execution_id, at)
    for key, value in values.items():
        out.say(f"{key}: {pformat(value, width=100)}")
    point = at or (found.latest.checkpoint_id if found.latest else None)
    out.data({"execution_id": found.execution_id, "checkpoint_id": point, "values": values})
    return 0


def _show_state_difference(found: Mapping[str, tuple[Any, Any]], out: Output) -> int:
    for key, (before, after) in found.items():
        out.say(f"{key}: {pformat(before, width=100)}\n  -> {pformat(after, width=100)}")
    if not found:
        out.say("no key differs")
    out.data({"differs": found})
    return 0


def files(args: Namespace, out: Output) -> int:
    """The files of an execution now, or at a checkpoint."""
    with need_ledger(find_project(args.project)) as open_uow:
        found = _history(open_uow, args)
        at = None if args.at is None else find_any_checkpoint(open_uow, found, args.at)
        tree = read_files(open_uow, found.execution_id, at)
        if args.diff is not None:
            other = find_any_checkpoint(open_uow, found, args.diff)
            before = read_files(open_uow, found.execution_id, other)
            return _show_file_difference(compare_files(before, tree), out)
    if args.restore_to is not None:
        if os.path.lexists(args.restore_to) and not _is_empty_folder(args.restore_to):
            raise InvalidInputError(f"{args.restore_to!r} is there already: name a new folder")
        open_tracker(find_project(args.project).locations).restore(tree, Path(args.restore_to))
        out.say(f"{len(tree)} files written to {args.restore_to}")
    else:
        _show_files(found.execution_id, tree, out)
    listed = [memento for _, memento in sorted(tree.items())]
    out.data({"execution_id": found.execution_id, "checkpoint_id": at, "files": listed})
    return 0


def _is_empty_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.listdir(path)


def _show_files(execution_id: str, tree: Mapping[str, FileMemento], out: Output) -> None:
    table = terminal.make_table("path", "bytes", "blob")
    for path, memento in sorted(tree.items()):
        table.add_row(Text(path), str(memento.size), memento.blob_id[:16])
    out.say(f"execution {execution_id}: {len(tree)} files")
    if tree:
        out.show(table)


def _show_file_difference(found: FileDifference, out: Output) -> int:
    for sign, paths in (("+", found.added), ("-", found.removed), ("~", found.changed)):
        for path in paths:
            out.say(f"{sign} {path}")
    if not (found.added or found.removed or found.changed):
        out.say("no file differs")
    out.data(found)
    return 0


def _show_report(report: BatchReport, args: Namespace, out: Output) -> None:
    if args.cells_too:
        out.show(terminal.cells_table(report.cells))
        return
    out.show(terminal.comparison_table(report, out.text))
    if best := terminal.best_line(report):
        out.say(best)
    for line in self_check_lines(report.self_check):
        out.say(line)
    out.say(terminal.bodies_line(report))
    if failed := terminal.unfinished(report.cells):
        cells = "cell is" if len(failed) == 1 else "cells are"
        out.say(f"{len(failed)} {cells} not completed: --cells lists them with the reason")


@contextmanager
def need_ledger(project: ProjectDefinition) -> Iterator[OpenUnitOfWork]:
    """The ledger of a project. Raises `InvalidInputError` before its first run."""
    with open_ledger(project.locations.database_url) as open_uow:
        if open_uow is None:
            raise _nothing_run(project)
        yield open_uow


def _disk_use(project: ProjectDefinition) -> ProjectDiskUse:
    # Checkpoints are LangGraph's, which listing batches does not need.
    from wtb_prefect.bootstrap.stores import open_stores  # noqa: PLC0415

    with open_stores(project.locations) as stores:
        return read_disk_use(project.workflow_id, stores)


def _nothing_run(project: ProjectDefinition) -> InvalidInputError:
    return InvalidInputError(
        f"project {project.name!r} has no batch yet (its ledger would be "
        f"{project.locations.database_url}): start one with `wtb run`"
    )


def _history(open_uow: OpenUnitOfWork, args: Namespace) -> ExecutionHistory:
    with open_uow() as uow:
        workflow_id = find_project(args.project).workflow_id
        execution = find_execution(uow, workflow_id, args.execution)
    return read_history(open_uow, execution.execution_id)


def _left_behind(args: Namespace, execution_id: str) -> list[str]:
    with need_ledger(find_project(args.project)) as open_uow, open_uow() as uow:
        execution = uow.executions.get(execution_id)
    return list(execution.metadata.get("abandoned", [])) if execution else []


def find_checkpoint(found: ExecutionHistory, asked: str) -> Checkpoint:
    """A checkpoint of a history by its id, or how it begins. Raises as `find_execution`."""
    exact = found.get(asked)
    if exact is not None:
        return exact
    begun = [c for c in found.checkpoints if asked and c.checkpoint_id.startswith(asked)]
    if len(begun) > 1:
        raise InvalidInputError(f"{len(begun)} checkpoints begin with {asked!r}: give more of it")
    if not begun:
        kind = f"checkpoint of execution {found.execution_id}"
        raise NotFoundError(kind, asked, [c.checkpoint_id for c in found.checkpoints])
    return begun[0]


def find_any_checkpoint(open_uow: OpenUnitOfWork, found: ExecutionHistory, asked: str) -> str:
    """The same, also of what the execution left behind when it was rolled back; gives the id."""
    try:
        return find_checkpoint(found, asked).checkpoint_id
    except NotFoundError:
        with open_uow() as uow:
            execution = uow.executions.get(found.execution_id)
        for kept_id in execution.metadata.get("abandoned", []) if execution else []:
            for point in read_history(open_uow, kept_id).checkpoints:
                if asked and point.checkpoint_id.startswith(asked):
                    return point.checkpoint_id
        raise


def _owner_alive(batch: BatchTest) -> bool | None:
    return None if batch.owner is None else is_alive(batch.owner)


def _standing(batch: BatchTest) -> Text:
    """The status; of a batch whose process was killed, that it was."""
    if batch.status is BatchStatus.RUNNING and _owner_alive(batch) is False:
        return Text("running, but its process is gone", style="yellow")
    mocked = ", ".join(sorted(batch.request.get("mocks", {})))
    standing = terminal.status_text(batch.status)
    return standing.append(f" (mocked: {mocked})", style="yellow") if mocked else standing
