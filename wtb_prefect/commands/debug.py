"""`wtb debug`: one cell again, in this process, under the debugger."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wtb_prefect import terminal
from wtb_prefect.application.find_cell import FoundCell, find_cell, place_of
from wtb_prefect.application.load_case import load_case
from wtb_prefect.application.read_history import read_files, read_history
from wtb_prefect.application.run_again import (
    Again,
    before_failure,
    begin_again,
    forget,
    run_again,
)
from wtb_prefect.application.run_batch import stored_scope
from wtb_prefect.application.session import Session
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.commands.look import find_checkpoint, need_ledger
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import load_project
from wtb_prefect.domain.checkpoint import Checkpoint
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.project import ProjectDefinition
from wtb_prefect.errors import InvalidInputError, NotFoundError
from wtb_prefect.infrastructure.workflow.debugging import NodeDebugger, debugged, run_debugged


def debug(args: Namespace, out: Output) -> int:
    """Runs a cell again from one of its checkpoints; the batch stays as it is."""
    definition = load_project(args.project).definition()
    with need_ledger(definition) as open_uow, open_uow() as uow:
        found = find_cell(uow, definition.workflow_id, args.cell, args.batch)
    debugger = NodeDebugger(args.node, stops=not args.post_mortem, own=_own_folder(definition))
    with open_session(definition, around=debugged(debugger)) as session:
        _check_node(args.node, session)
        again = _again(found, args.at, session)
        _announce(found, again, out)
        begin = begin_again(again, session)
        try:
            ended = run_debugged(run_again(begin, again, session), debugger)
            if ended is None:
                out.say("left before the end")
                out.data({"execution_id": None, "status": None})
                return 0
            _report(ended, found, session, args, out)
        finally:
            if not args.keep:
                forget(begin.execution, session)
    return 0 if ended.status is ExecutionStatus.COMPLETED else 1


def _again(found: FoundCell, at: str | None, session: Session) -> Again:
    cell, source = found.cell, found.execution
    scope = stored_scope(cell.batch_id, session)
    with session.open_uow() as uow:
        prepared = load_case(uow, session, scope, cell.case_id)
    return Again(
        cell=cell,
        scope=scope,
        prepared=prepared,
        source=source,
        point=_point(source, at, session),
    )


def _point(source: Execution | None, at: str | None, session: Session) -> Checkpoint | None:
    if source is None:
        if at is not None:
            raise InvalidInputError("this cell has no execution yet, and so no checkpoint")
        return None
    history = read_history(session.open_uow, source.execution_id)
    if at is not None:
        return find_checkpoint(history, at)
    return before_failure(source, history, session)


def _check_node(node: str | None, session: Session) -> None:
    known = session.engine.describe().node_names()
    if node is not None and node.partition("|")[0] not in known:
        raise NotFoundError("node", node, known)


def _own_folder(definition: ProjectDefinition) -> str | None:
    """The folder of the package a project is part of: the user's code also where installed."""
    module = (definition.import_path or "").partition(":")[0]
    package = sys.modules.get(module.partition(".")[0])
    file = getattr(package, "__file__", None)
    return os.path.dirname(os.path.abspath(file)) if file and "." in module else None


def _announce(found: FoundCell, again: Again, out: Output) -> None:
    where = "from its start"
    if again.point is not None:
        last = ", ".join(again.point.nodes) or "the input"
        where = f"from checkpoint {again.point.checkpoint_id} (after {last})"
    out.say(f"cell {place_of(found.cell)} of batch {found.cell.batch_id}, {where}")
    if not sys.stdin.isatty():
        out.note("stdin is no terminal: the debugger reads its commands there, and ends with it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """What is not as it was recorded; None: there is no recorded end to compare with."""

    state: list[str]
    files: list[str]


def _report(
    ended: Execution, found: FoundCell, session: Session, args: Namespace, out: Output
) -> None:
    out.say(f"ended: {_words(ended)}")
    compared = None
    if found.execution is not None and found.execution.head is not None:
        compared = _compare(ended, found.execution, session)
        out.say(f"recorded: {_words(found.execution)}")
        for what, names in (("state", compared.state), ("files", compared.files)):
            different = f"not as recorded: {', '.join(names)}" if names else "as recorded"
            out.say(f"{what}: {different}")
    kept = ended.execution_id if args.keep else None
    if kept is not None:
        out.say(f"kept: wtb history {args.project} {kept[:13]}")
    out.data(
        {"execution_id": kept, "status": ended.status, "error": ended.error, "different": compared}
    )


def _words(execution: Execution) -> str:
    if execution.error is not None:
        return f"{execution.status}: {terminal.one_line(str(execution.error))}"
    after = f" before {', '.join(execution.next_nodes)}" if execution.next_nodes else ""
    return f"{execution.status}{after}"


def _compare(ended: Execution, recorded: Execution, session: Session) -> _Difference:
    new = {} if ended.head is None else _values(ended, session)
    old = _values(recorded, session)
    missing = object()
    keys = [
        key
        for key in sorted({*new, *old})
        # Message ids aside: LangGraph draws them at random.
        if session.engine.difference(new.get(key, missing), old.get(key, missing), key) is not None
    ]
    files = [read_files(session.open_uow, e.execution_id, None) for e in (ended, recorded)]
    paths = sorted({*files[0], *files[1]})
    return _Difference(
        state=keys, files=[path for path in paths if files[0].get(path) != files[1].get(path)]
    )


def _values(execution: Execution, session: Session) -> Mapping[str, Any]:
    assert execution.head is not None
    thread = thread_id(execution.execution_id)
    return session.engine.state(thread, execution.head).values
