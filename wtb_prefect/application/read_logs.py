"""What the code of an execution printed and logged, over its whole lineage, and what ended it."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from wtb_prefect.domain.execution import Execution, ExecutionKind
from wtb_prefect.domain.interfaces.surroundings import CellLogReader
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.log_line import LogLine
from wtb_prefect.errors import NotFoundError


def read_logs(
    open_uow: OpenUnitOfWork, logs: CellLogReader, execution_id: str, node: str | None = None
) -> list[LogLine]:
    """The lines of an execution, those of its shared prefixes first, its failures last.

    `node` keeps those of one node (`outer` includes `outer|inner`). Raises `NotFoundError`.
    """
    with open_uow() as uow:
        line = uow.executions.lineage(execution_id)
        if not line:
            raise NotFoundError("execution", execution_id)
        until = [_forked_at(uow, *pair) for pair in pairwise(line)]
        failures = _failures(uow, line[-1])
    found: list[LogLine] = []
    for execution, limit in zip(line, [*until, None], strict=True):
        kept = logs.read(execution.execution_id)
        found += [entry for entry in kept if limit is None or entry.at <= limit]
    found += failures
    if node is None:
        return found
    return [e for e in found if e.node == node or (e.node or "").startswith(f"{node}|")]


def _forked_at(uow: UnitOfWork, parent: Execution, child: Execution) -> datetime | None:
    """When the child's past ends in the parent's; None if all of the parent is its past."""
    if parent.kind is ExecutionKind.SEGMENT or child.lineage is None:
        return None
    links = uow.checkpoint_files.list(parent.execution_id)
    at = [li.created_at for li in links if li.checkpoint_id == child.lineage.checkpoint_id]
    return max(at, default=None)


def _failures(uow: UnitOfWork, leaf: Execution) -> list[LogLine]:
    ended = leaf.finished_at or leaf.created_at
    found = []
    if leaf.error is not None:
        found.append((leaf.error.node, ended, leaf.error.traceback))
    results = uow.evaluation_results.list_many([leaf.execution_id])
    seen: set[str] = set()
    for result in results.get(leaf.execution_id, []):
        if result.traceback is not None and result.evaluator not in seen:
            seen.add(result.evaluator)
            found.append((f"evaluator {result.evaluator}", result.created_at, result.traceback))
    return [
        LogLine(
            execution_id=leaf.execution_id,
            at=at,
            node=node,
            level="traceback",
            text=text.rstrip("\n"),
        )
        for node, at, text in found
    ]
