"""Looking back along an execution: checkpoints, files and the code that ran, over its lineage."""

from __future__ import annotations

from collections.abc import Sequence

from wtb_prefect.domain.checkpoint import Checkpoint, ExecutionHistory
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.file_processing import CheckpointFileLink, FileMemento
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.lineage import links_until, visits_until
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.errors import InvalidInputError, NotFoundError


def find_execution(uow: UnitOfWork, workflow_id: str, asked: str) -> Execution:
    """The execution of an id, or of its beginning.

    Raises:
        NotFoundError: no such execution.
        InvalidInputError: several begin like that.
    """
    exact = uow.executions.get(asked)
    if exact is not None:
        return exact
    every = uow.executions.list(workflow_id=workflow_id)
    found = [e for e in every if asked and e.execution_id.startswith(asked)]
    if not found:
        raise NotFoundError("execution", asked, [e.execution_id for e in every])
    if len(found) > 1:
        ids = ", ".join(sorted(e.execution_id for e in found)[:5])
        raise InvalidInputError(f"{len(found)} executions begin with {asked!r}: {ids}")
    return found[0]


def read_history(open_uow: OpenUnitOfWork, execution_id: str) -> ExecutionHistory:
    """All checkpoints behind an execution, oldest first, those of its shared prefixes included."""
    with open_uow() as uow:
        line = _line(uow, execution_id)
        links = [link for link in _links_behind(uow, line) if not link.pending]
    # A fork begins with a copy of its parent's last checkpoint: shown once, as the parent's.
    seen: dict[str, CheckpointFileLink] = {}
    for link in links:
        seen.setdefault(link.checkpoint_id, link)
    ordered = list(seen.values())
    following = _following(ordered, line[-1].next_nodes)
    return ExecutionHistory(
        execution_id=line[-1].execution_id,
        checkpoints=tuple(
            Checkpoint(
                checkpoint_id=link.checkpoint_id,
                execution_id=link.execution_id,
                step=link.step,
                nodes=link.nodes,
                next=after,
                created_at=link.created_at,
                file_commit_id=link.commit_id,
                parent_id=link.parent_checkpoint_id,
            )
            for link, after in zip(ordered, following, strict=True)
        ),
    )


def _following(links: Sequence[CheckpointFileLink], last: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What ran after each checkpoint; a change of the state by hand runs nothing."""
    following, after = [], last
    for link in reversed(links):
        following.append(after)
        after = link.nodes if link.nodes or link.step <= 0 else after
    return following[::-1]


def read_boundaries(open_uow: OpenUnitOfWork, execution_id: str) -> list[NodeBoundary]:
    """Every visit of a node behind an execution, in order, those of its prefixes included."""
    with open_uow() as uow:
        return boundaries_behind(uow, _line(uow, execution_id))


def boundaries_behind(uow: UnitOfWork, line: Sequence[Execution]) -> list[NodeBoundary]:
    """The visits of a lineage (root first) that its last execution has behind it.

    Where it leads into an earlier run, that run went on in its own way after the checkpoint it was
    left at: what it did there is not behind this execution.
    """
    found = uow.node_boundaries.list_many([e.execution_id for e in line])
    behind: list[NodeBoundary] = []
    for execution, child in zip(line, [*line[1:], None], strict=True):
        visits = found.get(execution.execution_id, [])
        lineage, inherited = (child.lineage, child.inherited) if child else (None, None)
        if lineage is not None and inherited is not None and not inherited.pending:
            links = uow.checkpoint_files.list(execution.execution_id)
            visits = visits_until(visits, links, lineage.checkpoint_id)
        behind += visits
    return behind


def _links_behind(uow: UnitOfWork, line: Sequence[Execution]) -> list[CheckpointFileLink]:
    found = uow.checkpoint_files.list_many([e.execution_id for e in line])
    behind: list[CheckpointFileLink] = []
    for execution, child in zip(line, [*line[1:], None], strict=True):
        links = found.get(execution.execution_id, [])
        if child is not None and child.lineage is not None:
            links = links_until(links, child.lineage.checkpoint_id)
        behind += links
    return behind


def read_files(
    open_uow: OpenUnitOfWork, execution_id: str, checkpoint_id: str | None
) -> dict[str, FileMemento]:
    """The files of an execution now, or as of one of its checkpoints.

    Raises:
        NotFoundError: unknown execution, or a checkpoint that is not behind it.
    """
    point = None if checkpoint_id is None else find_point(open_uow, execution_id, checkpoint_id)[1]
    with open_uow() as uow:
        here = _line(uow, execution_id)[-1].commit_id
        commit_id = here if point is None else point.file_commit_id
        return uow.file_commits.tree(commit_id) if commit_id is not None else {}


def checkpoint_of(history: ExecutionHistory, checkpoint_id: str) -> Checkpoint:
    """A checkpoint of a history. Raises `NotFoundError` naming those that exist."""
    found = history.get(checkpoint_id)
    if found is None:
        raise NotFoundError(
            f"checkpoint of execution {history.execution_id}",
            checkpoint_id,
            [c.checkpoint_id for c in history.checkpoints],
        )
    return found


def find_point(
    open_uow: OpenUnitOfWork, execution_id: str, checkpoint_id: str
) -> tuple[str, Checkpoint]:
    """A checkpoint behind an execution, or left behind by it, and the execution that has it.

    Raises:
        NotFoundError: unknown execution, or a checkpoint of another one.
    """
    history = read_history(open_uow, execution_id)
    if history.get(checkpoint_id) is None:
        left = abandoned_by(open_uow, execution_id, checkpoint_id)
        if left is not None:
            return left
    return execution_id, checkpoint_of(history, checkpoint_id)


def abandoned_by(
    open_uow: OpenUnitOfWork, execution_id: str, checkpoint_id: str
) -> tuple[str, Checkpoint] | None:
    """A checkpoint that an execution left behind when it was rolled back, with the execution that
    keeps it now."""
    with open_uow() as uow:
        found = uow.executions.get(execution_id)
    for kept_id in found.metadata.get("abandoned", []) if found else []:
        point = read_history(open_uow, kept_id).get(checkpoint_id)
        if point is not None:
            return kept_id, point
    return None


def _line(uow: UnitOfWork, execution_id: str) -> list[Execution]:
    line = uow.executions.lineage(execution_id)
    if not line:
        raise NotFoundError("execution", execution_id)
    return line
