"""Whether what the ledger claims of the other stores is so: each is looked up where it points.

A claim about something that was taken away on purpose since (a deleted batch, pruned checkpoints,
a future left behind by a rollback) is void: there is nothing to be wrong about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wtb_prefect.application.session import Session
from wtb_prefect.application.stores_follow import finish_rollback
from wtb_prefect.domain.execution import Execution, ExecutionKind
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import CheckpointId, thread_id
from wtb_prefect.domain.outbox import OutboxEvent, OutboxEventType
from wtb_prefect.errors import FileTrackingError, WTBError


@dataclass(slots=True)
class ClaimVerifier:
    """Checks claims in sets: what they are about is read at once for all of them.

    `deep` reads every checkpoint and every file's bytes; else both are only looked up, with their
    parents and sizes.
    """

    session: Session
    deep: bool = False
    _executions: Mapping[str, Execution] = field(default_factory=dict)
    _links: Mapping[str, Sequence[CheckpointFileLink]] = field(default_factory=dict)
    _parents: Mapping[tuple[str, CheckpointId], CheckpointId | None] = field(default_factory=dict)
    _commits: dict[str, str | None] = field(default_factory=dict)

    def check(self, events: Sequence[OutboxEvent]) -> dict[str, str | None]:
        """Event id -> what is wrong (None: nothing).

        Raises `InfrastructureError` if a store cannot be asked at all.
        """
        self._read(events)
        return {event.event_id: self._check(event) for event in events}

    def _read(self, events: Sequence[OutboxEvent]) -> None:
        ids = list({event.aggregate_id for event in events})
        with self.session.open_uow() as uow:
            self._executions = uow.executions.get_many(ids)
            self._links = uow.checkpoint_files.list_many(list(self._executions))
        threads = [thread_id(execution_id) for execution_id in self._executions]
        self._parents = self.session.checkpoints.parents(threads)

    def _check(self, event: OutboxEvent) -> str | None:
        subject = event.payload.get("subject")
        if not isinstance(subject, str):
            return f"claim {event.event_id} says not what it is about"
        match event.type:
            case OutboxEventType.CHECKPOINT_VERIFY:
                return self._checkpoint(event.aggregate_id, subject)
            case OutboxEventType.FILE_COMMIT_VERIFY:
                return self._commit(event.aggregate_id, subject)
            case OutboxEventType.CHECKPOINT_FILE_LINK_VERIFY:
                return self._link(event.aggregate_id, subject)
            case OutboxEventType.ROLLBACK_FILE_RESTORE:
                return self._rollback(event)

    def _checkpoint(self, execution_id: str, checkpoint_id: str) -> str | None:
        links = self._standing_links(execution_id, checkpoint_id)
        link = next((link for link in links if not link.pending), None)
        if link is None:
            return None
        thread = thread_id(execution_id)
        key = thread, link.checkpoint_id
        if key not in self._parents:
            return f"checkpoint {checkpoint_id} of execution {execution_id} is not in the store"
        pruned = self._executions[execution_id].is_pruned  # its parents are gone
        if self._parents[key] != link.parent_checkpoint_id and not pruned:
            return (
                f"checkpoint {checkpoint_id} of execution {execution_id} has the parent "
                f"{self._parents[key]} in the store and {link.parent_checkpoint_id} in the ledger"
            )
        return self._read_back(thread, link.checkpoint_id) if self.deep else None

    def _read_back(self, thread: str, checkpoint_id: CheckpointId) -> str | None:
        try:
            found = self.session.checkpoints.load(thread, checkpoint_id)
        except WTBError as exc:
            return f"checkpoint {checkpoint_id} cannot be read back: {exc}"
        if (found.thread_id, found.checkpoint_id) != (thread, checkpoint_id):
            return f"checkpoint {checkpoint_id} of {thread} says it is {found.checkpoint_id}"
        return None

    def _commit(self, execution_id: str, commit_id: str) -> str | None:
        if commit_id not in self._commits:
            self._commits[commit_id] = self._look_at_commit(execution_id, commit_id)
        return self._commits[commit_id]

    def _look_at_commit(self, execution_id: str, commit_id: str) -> str | None:
        with self.session.open_uow() as uow:
            commit = uow.file_commits.get(commit_id)
            parent_id = None if commit is None else commit.parent_id
            parent = None if parent_id is None else uow.file_commits.get(parent_id)
        if commit is None:
            links = self._links.get(execution_id, ())
            is_named = any(link.commit_id == commit_id for link in links)
            return f"file commit {commit_id} is not in the ledger" if is_named else None
        if parent_id is not None and parent is None:
            return f"file commit {commit_id} has a parent {parent_id} that is missing"
        try:
            self.session.tracker.verify(commit.changed, deep=self.deep)
        except FileTrackingError as exc:
            return f"file commit {commit_id}: {exc}"
        return None

    def _link(self, execution_id: str, subject: str) -> str | None:
        checkpoint_id, _, commit_id = subject.partition(":")
        links = self._standing_links(execution_id, checkpoint_id)
        if not any(link.commit_id == commit_id for link in links):
            return None
        if (thread_id(execution_id), links[0].checkpoint_id) not in self._parents:
            return (
                f"execution {execution_id} has files ({commit_id}) at checkpoint {checkpoint_id}, "
                "which is not in the store"
            )
        return self._commit(execution_id, commit_id)

    def _rollback(self, event: OutboxEvent) -> str | None:
        try:
            finish_rollback(event, self.session)
        except FileTrackingError as exc:
            return f"execution {event.aggregate_id} is not put back yet: {exc}"
        return None

    def _standing_links(self, execution_id: str, checkpoint_id: str) -> list[CheckpointFileLink]:
        """The ledger's records of a checkpoint; none if it says no longer that it is there."""
        execution = self._executions.get(execution_id)
        if execution is None:
            return []
        stays = execution.kind is not ExecutionKind.SEGMENT and checkpoint_id == execution.head
        if execution.is_pruned and not stays:
            return []
        links = self._links.get(execution_id, ())
        return [
            link for link in links if not link.namespace and link.checkpoint_id == checkpoint_id
        ]
