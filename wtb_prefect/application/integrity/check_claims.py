"""The outbox: what has to be claimed is, what is claimed is there, and nothing is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from wtb_prefect.application.integrity.check_ledger import A_PERSON, RELINK, issue
from wtb_prefect.application.integrity.ledger_view import LedgerView
from wtb_prefect.application.process_outbox import KEPT_DAYS
from wtb_prefect.application.step_records import claims_of
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.integrity import IntegrityIssue, IssueKind, RepairAction, Severity
from wtb_prefect.domain.outbox import OutboxEvent, OutboxEventType, OutboxStatus

_STUCK = timedelta(hours=1)
_OF_RECORDS = (OutboxEventType.CHECKPOINT_VERIFY, OutboxEventType.CHECKPOINT_FILE_LINK_VERIFY)


def check_claims(view: LedgerView) -> Iterator[IntegrityIssue]:
    """Everything about the outbox. Claims are kept for a while only, so of older things none is
    missed."""
    there = {event.event_id for event in view.claims}
    made: set[str] = set()
    for execution in view.executions.values():
        expected = [claim for link in _claiming(execution, view) for claim in claims_of(link)]
        made.update(claim.event_id for claim in expected)
        if not execution.is_pruned and _is_young(execution.created_at, view):
            yield from _missing(execution, expected, there)
    yield from _of_commits(view)
    yield from _of_rollbacks(view)
    for event in view.claims:
        yield from _event(event, made, view)


def _is_young(at: datetime, view: LedgerView) -> bool:
    return view.now - at < timedelta(days=KEPT_DAYS)


def _claiming(execution: Execution, view: LedgerView) -> Iterator[CheckpointFileLink]:
    """The records that claim something: not those of subgraphs, nor where a fork begins."""
    links = [link for link in view.links.get(execution.execution_id, ()) if not link.namespace]
    begin = next((link for link in links if not link.pending), None)
    is_fork = execution.lineage is not None
    return (link for link in links if not (is_fork and link is begin))


def _missing(
    execution: Execution, expected: list[OutboxEvent], there: set[str]
) -> Iterator[IntegrityIssue]:
    for claim in expected:
        if claim.event_id not in there:
            detail = f"claim {claim.event_id} was never made, or is gone"
            about = {"event_id": claim.event_id}
            yield issue(IssueKind.MISSING_ROW, execution.execution_id, detail, RELINK, about)


def _of_commits(view: LedgerView) -> Iterator[IntegrityIssue]:
    kind = OutboxEventType.FILE_COMMIT_VERIFY
    claimed = {event.payload.get("subject") for event in view.claims if event.type is kind}
    for commit in view.commits.values():
        if commit.commit_id not in claimed and _is_young(commit.created_at, view):
            yield issue(IssueKind.MISSING_ROW, commit.commit_id, "no claim says it is there")


def _of_rollbacks(view: LedgerView) -> Iterator[IntegrityIssue]:
    kind = OutboxEventType.ROLLBACK_FILE_RESTORE
    subjects = [str(e.payload.get("subject")) for e in view.claims if e.type is kind]
    archives = {subject.rpartition(":")[2] for subject in subjects}
    for execution in view.executions.values():
        is_archive = "abandoned_by" in execution.metadata
        is_claimed = execution.execution_id in archives
        if is_archive and not is_claimed and _is_young(execution.created_at, view):
            detail = "no claim says that files were put back when this was left behind"
            yield issue(IssueKind.MISSING_ROW, execution.execution_id, detail)


def _stands(execution: Execution, view: LedgerView) -> bool:
    return not execution.is_pruned and not view.is_live(execution)


def _event(event: OutboxEvent, made: set[str], view: LedgerView) -> Iterator[IntegrityIssue]:
    about = event.payload.get("execution_id")
    if about is not None:
        execution = view.executions.get(str(about))
        if execution is None:
            detail = f"claim {event.event_id} is about this execution"
            yield issue(IssueKind.DANGLING_REFERENCE, str(about), detail)
        elif event.type in _OF_RECORDS and event.event_id not in made and _stands(execution, view):
            detail = f"claim {event.event_id} is about a record that is gone"
            yield issue(IssueKind.MISSING_ROW, execution.execution_id, detail, A_PERSON)
    stuck = event.status is OutboxStatus.PENDING and view.now - event.created_at > _STUCK
    if stuck or event.status is OutboxStatus.FAILED:
        why = event.last_error or "it waits for more than an hour"
        severity = Severity.WARNING if stuck else Severity.CRITICAL
        how, on = (RepairAction.RETRY, severity), {"event_id": event.event_id}
        yield issue(IssueKind.OUTBOX_STUCK, event.event_id, why, how, on)
