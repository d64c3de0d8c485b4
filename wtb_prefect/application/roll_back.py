"""Putting an execution back to a checkpoint: state, next nodes and files; nothing is forgotten.

What came after the checkpoint becomes an execution of its own, which keeps its status, can be read
and branched from, and is named in the metadata of the one that left it behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.drive_execution import ACTOR, Controller, controlled
from wtb_prefect.application.find_past import inherited_of
from wtb_prefect.application.fork_at_point import ForkPoint, begin_links, fork_point
from wtb_prefect.application.read_history import abandoned_by, checkpoint_of, read_history
from wtb_prefect.application.read_state import holder_of
from wtb_prefect.application.session import Session
from wtb_prefect.application.step_records import claim, claims_of
from wtb_prefect.application.stores_follow import stores_follow
from wtb_prefect.domain.checkpoint import Checkpoint
from wtb_prefect.domain.events import CheckpointRolledBack, FilesVerified
from wtb_prefect.domain.execution import Execution, ExecutionStatus, Lineage
from wtb_prefect.domain.execution_control import Move, check_move
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.lineage import visits_until
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.outbox import (
    LEASE_SECONDS,
    OutboxEvent,
    OutboxEventType,
    OutboxStatus,
)
from wtb_prefect.errors import IllegalMoveError, InvalidInputError, NotFoundError


def roll_back(
    execution_id: str, place: Checkpoint, archive_id: str, session: Session, by: Controller
) -> Execution:
    """Puts an execution back to a checkpoint behind it; it is paused there, to be resumed.

    `archive_id` is for the execution that keeps what came after. The order is: a copy of the
    thread's end, one transaction that moves its rows and the head, then the thread and the folder
    are put back; a crash in between is made good when the execution goes on.

    Raises:
        IllegalMoveError: it cannot be rolled back as it stands.
        FileTrackingError: files of that point are missing or damaged; nothing was changed.
    """
    with session.open_uow() as uow:
        before, control = controlled(uow, execution_id)
        check_move(Move.ROLLBACK, before, is_live=by.runs(control))
    holder = holder_of(execution_id, place, session)
    with session.open_uow() as uow:
        future = _future(uow, before, fork_point(uow, holder, place))
    tree = CommitTree(session.open_uow, future.point.link.commit_id)
    session.tracker.verify(tree.values())
    if future.exists:
        begun = before.lineage if future.whole else None
        first = begun.checkpoint_id if begun else place.checkpoint_id
        session.checkpoints.copy(thread_id(execution_id), first, thread_id(archive_id))
    with session.open_uow(write=True) as uow:
        now, control = controlled(uow, execution_id)
        if by.runs(control) or replace(now, metadata={}) != replace(before, metadata={}):
            raise IllegalMoveError(
                f"execution {execution_id} was moved by another process just now; look again"
            )
        after = _rolled_back(uow, before, place, future, archive_id, session)
        _record(uow, before, after, archive_id if future.exists else None, len(tree), session)
        uow.commit()
    after = stores_follow(after, tree, session)
    done = replace(
        _claim(after, archive_id, session),
        status=OutboxStatus.PROCESSED,
        processed_at=session.clock.now(),
    )
    with session.open_uow(write=True) as uow:
        uow.outbox.settle([done])
        uow.commit()
    return after


def point_to_return_to(
    execution_id: str, checkpoint_id: str | None, node: str | None, session: Session
) -> Checkpoint:
    """A checkpoint behind an execution: by its id, or the one just after a node's last visit.

    Raises:
        InvalidInputError: neither is given, or both.
        NotFoundError: it is not behind the execution.
    """
    if (checkpoint_id is None) == (node is None):
        raise InvalidInputError("roll back to a checkpoint or to a node: give one of the two")
    history = read_history(session.open_uow, execution_id)
    if checkpoint_id is not None:
        found = history.get(checkpoint_id)
        if found is None and abandoned_by(session.open_uow, execution_id, checkpoint_id):
            raise IllegalMoveError(
                f"checkpoint {checkpoint_id} was left behind when execution {execution_id} was "
                "rolled back; branch from it instead"
            )
        return found or checkpoint_of(history, checkpoint_id)
    found = history.after(str(node))
    if found is None:
        raise NotFoundError("completed visit of node", str(node), dict.fromkeys(history.path()))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Future:
    """What an execution leaves behind. `whole`: all it ever did, because the point lies before the
    fork it began with."""

    point: ForkPoint
    whole: bool
    links: Sequence[CheckpointFileLink]
    visits: Sequence[NodeBoundary]

    @property
    def exists(self) -> bool:
        return bool(self.links or self.visits)


def _future(uow: UnitOfWork, execution: Execution, point: ForkPoint) -> _Future:
    links = uow.checkpoint_files.list(execution.execution_id)
    visits = uow.node_boundaries.list(execution.execution_id)
    if point.holder != execution.execution_id:
        return _Future(point=point, whole=True, links=links, visits=visits)
    kept = visits_until(visits, links, point.link.checkpoint_id)
    return _Future(
        point=point,
        whole=False,
        links=[link for link in links if link.sequence > point.link.sequence],
        visits=[visit for visit in visits if visit not in kept],
    )


def _rolled_back(
    uow: UnitOfWork,
    before: Execution,
    place: Checkpoint,
    future: _Future,
    archive_id: str,
    session: Session,
) -> Execution:
    """Moves the rows, in the caller's transaction."""
    link = future.point.link
    left = inherited_of(future.visits)
    metadata = dict(before.metadata)
    if future.exists:
        _archive(uow, before, future, archive_id, session)
        metadata["abandoned"] = [*metadata.get("abandoned", []), archive_id]
    after = replace(
        before,
        status=ExecutionStatus.PAUSED,
        head=link.checkpoint_id,
        step=link.step,
        commit_id=link.commit_id,
        next_nodes=place.next,
        error=None,
        finished_at=None,
        answers={q: n for q, n in before.answers.items() if n < link.answers},
        node_executions=before.node_executions - left.node_executions,
        cache_hits=before.cache_hits - left.cache_hits,
        input_tokens=before.input_tokens - left.input_tokens,
        output_tokens=before.output_tokens - left.output_tokens,
        duration=max(0.0, before.duration - left.duration),
        metadata=metadata,
    )
    if future.whole:
        after = _rebased(uow, after, future.point)
    uow.executions.save(after)
    uow.outbox.add_many([_claim(after, archive_id, session)])
    return after


def _claim(after: Execution, archive_id: str, session: Session) -> OutboxEvent:
    """That the files are put back; ours until we have done so, and anybody's if we die of it."""
    now = session.clock.now()
    subject = f"{after.head}:{after.commit_id or ''}:{archive_id}"
    kind = OutboxEventType.ROLLBACK_FILE_RESTORE
    made = claim(kind, after.execution_id, subject, now)
    return replace(made, lease_until=now + timedelta(seconds=LEASE_SECONDS))


def _record(
    uow: UnitOfWork,
    before: Execution,
    after: Execution,
    kept_as: str | None,
    files: int,
    session: Session,
) -> None:
    assert after.head is not None
    said: dict[str, Any] = {"at": session.clock.now(), "execution_id": after.execution_id}
    if after.commit_id is not None:
        uow.record(FilesVerified(**said, commit_id=after.commit_id, files=files), ACTOR)
    rolled_back = CheckpointRolledBack(
        **said,
        batch_id=after.batch_id,
        checkpoint_id=after.head,
        left=before.head,
        kept_as=kept_as,
    )
    uow.record(rolled_back, ACTOR)


def _rebased(uow: UnitOfWork, execution: Execution, point: ForkPoint) -> Execution:
    """Begins in the middle of an ancestor now."""
    for link in begin_links(execution.execution_id, point):
        uow.checkpoint_files.save(link)
    lineage = Lineage(
        parent_id=point.holder,
        checkpoint_id=point.link.checkpoint_id,
        commit_id=point.link.commit_id,
    )
    return replace(execution, lineage=lineage, inherited=point.behind)


def _archive(
    uow: UnitOfWork, before: Execution, future: _Future, archive_id: str, session: Session
) -> None:
    left = inherited_of(future.visits)
    point, old = future.point, before.execution_id
    archive = replace(
        before,
        execution_id=archive_id,
        created_at=session.clock.now(),
        node_executions=left.node_executions,
        cache_hits=left.cache_hits,
        input_tokens=left.input_tokens,
        output_tokens=left.output_tokens,
        duration=left.duration,
        metadata={"abandoned_by": old},
    )
    moved = [link.checkpoint_id for link in future.links if not link.namespace]
    if not future.whole:
        lineage = Lineage(
            parent_id=old, checkpoint_id=point.link.checkpoint_id, commit_id=point.link.commit_id
        )
        archive = replace(archive, lineage=lineage, inherited=point.behind)
        moved = [c for c in moved if c != point.link.checkpoint_id]
        for link in begin_links(archive_id, point):
            uow.checkpoint_files.save(link)
    uow.executions.add(archive)
    uow.checkpoint_files.move(old, [link.sequence for link in future.links], archive_id)
    uow.node_boundaries.move(old, [visit.task_id for visit in future.visits], archive_id)
    uow.executions.move_children(old, moved, archive_id)
    for link in future.links:
        if not link.namespace:
            uow.outbox.delete([event.event_id for event in claims_of(link)])
            uow.outbox.add_many(claims_of(replace(link, execution_id=archive_id)))
