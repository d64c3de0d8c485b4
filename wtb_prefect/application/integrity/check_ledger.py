"""Rows that name rows: each has to be there, and to say the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from wtb_prefect.application.integrity.ledger_view import LedgerView
from wtb_prefect.application.session import cell_id_of
from wtb_prefect.application.staleness import EVALUATOR
from wtb_prefect.domain.batch_test import BatchStatus, VariantCombination
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.domain.integrity import IntegrityIssue, IssueKind, RepairAction, Severity
from wtb_prefect.domain.workflow import ORIGINAL


def check_ledger(view: LedgerView) -> Iterator[IntegrityIssue]:
    """Everything that can be seen in the ledger alone."""
    yield from _batches(view)
    yield from _cells(view)
    for execution in view.executions.values():
        yield from _execution(execution, view)
        yield from _records(execution, view)
        yield from _visits(execution, view)
    yield from _owners(view)


How = tuple[RepairAction, Severity]
"""What repair does about an issue, and how bad it is."""

A_PERSON: How = (RepairAction.MANUAL, Severity.CRITICAL)
RELINK: How = (RepairAction.RELINK, Severity.WARNING)
RETRY: How = (RepairAction.RETRY, Severity.CRITICAL)
MARK_CRASHED: How = (RepairAction.MARK_CRASHED, Severity.WARNING)


def issue(
    kind: IssueKind,
    subject: str,
    detail: str,
    how: How = A_PERSON,
    about: Mapping[str, str] = MappingProxyType({}),
) -> IntegrityIssue:
    """An issue; critical and a person's to decide, unless said otherwise."""
    action, severity = how
    return IntegrityIssue(
        kind=kind, severity=severity, subject=subject, action=action, detail=detail, about=about
    )


def _batches(view: LedgerView) -> Iterator[IntegrityIssue]:
    named = {e.batch_id for e in view.executions.values() if e.batch_id} - set(view.batches)
    for batch_id in sorted(named | ({c.batch_id for c in view.cells} - set(view.batches))):
        yield issue(IssueKind.MISSING_ROW, batch_id, "executions or cells are of this batch")
    for batch in view.batches.values():
        if batch.status is BatchStatus.DELETING:
            continue
        if batch.workflow_id not in view.workflows:
            detail = f"batch {batch.batch_id} is of this workflow"
            yield issue(IssueKind.MISSING_ROW, batch.workflow_id, detail)
        for node, name in sorted(_variants(batch.request) - view.variants[batch.workflow_id]):
            detail = f"batch {batch.batch_id} was asked with this variant"
            yield issue(IssueKind.MISSING_ROW, f"{node}={name}", detail)
        there = {case.case_id for case in view.cases[batch.batch_id]}
        for case_id in batch.request["cases"]:
            if case_id not in there:
                subject = f"{batch.batch_id}/{case_id}"
                yield issue(IssueKind.MISSING_ROW, subject, "the batch was asked with this case")
        if batch.started_at and "batch.started" not in view.told.get(batch.batch_id, ()):
            detail = "the audit log does not say that it was started"
            yield issue(IssueKind.MISSING_ROW, batch.batch_id, detail)


def _cells(view: LedgerView) -> Iterator[IntegrityIssue]:
    cells = {cell.cell_id: cell for cell in view.cells}
    for batch in view.batches.values():
        for name, case_id, repeat in _places(batch.request):
            cell_id = cell_id_of(batch.batch_id, case_id, repeat, name)
            if cell_id not in cells and batch.status is not BatchStatus.DELETING:
                subject = f"{batch.batch_id}/{name}/{case_id}/{repeat}"
                yield issue(IssueKind.MISSING_ROW, subject, "the batch was asked for this cell")
    for cell in cells.values():
        if cell.execution_id is None:
            continue
        found = view.executions.get(cell.execution_id)
        about = {"cell_id": cell.cell_id}
        if found is None:
            detail = f"cell {cell.cell_id} is answered by this execution, which is not there"
            yield issue(IssueKind.DANGLING_REFERENCE, cell.execution_id, detail, RETRY, about)
        elif found.status is not cell.status and not view.is_live(found):
            detail = f"it is {found.status}, its cell {cell.cell_id} says {cell.status}"
            yield issue(IssueKind.STATE_MISMATCH, cell.execution_id, detail, RELINK, about)
        elif cell.status is ExecutionStatus.COMPLETED:
            wanted = {k.removeprefix(EVALUATOR) for k in cell.fingerprints if EVALUATOR in k}
            have = {score.evaluator for score in view.scores.get(cell.execution_id, ())}
            for evaluator in sorted(wanted - have):
                detail = f"it has no result of evaluator {evaluator!r}"
                yield issue(IssueKind.MISSING_ROW, cell.execution_id, detail, RETRY, about)


def _places(request: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    for choices in request["combinations"]:
        name = VariantCombination.of(choices).name
        for case_id in request["cases"]:
            for repeat in range(request["repeats"]):
                yield name, case_id, repeat


def _variants(request: Mapping[str, Any]) -> set[tuple[str, str]]:
    every = (chosen for choices in request["combinations"] for chosen in choices.items())
    return {(node, name) for node, name in every if name != ORIGINAL}


def _execution(execution: Execution, view: LedgerView) -> Iterator[IntegrityIssue]:
    known, kind = execution.execution_id, IssueKind.DANGLING_REFERENCE
    if execution.workflow_id not in view.workflows:
        yield issue(IssueKind.MISSING_ROW, execution.workflow_id, f"{known} is of this workflow")
    lineage = execution.lineage
    if lineage is not None and lineage.parent_id not in view.executions:
        yield issue(kind, lineage.parent_id, f"execution {known} was forked from it")
    if execution.commit_id is not None and execution.commit_id not in view.commits:
        yield issue(kind, execution.commit_id, f"execution {known} has the files of this commit")
    is_archive = "abandoned_by" in execution.metadata
    if execution.kind is ExecutionKind.RUN and known not in view.controls and not is_archive:
        yield issue(IssueKind.MISSING_ROW, known, "nothing says how this run is controlled")
    if execution.status.is_final and not is_archive:
        verb = "forked" if execution.split_nodes else execution.status
        if f"execution.{verb}" not in view.told.get(known, ()):
            detail = f"the audit log does not say that it has {verb}"
            yield issue(IssueKind.MISSING_ROW, known, detail)


def _records(execution: Execution, view: LedgerView) -> Iterator[IntegrityIssue]:
    known = execution.execution_id
    links = view.links.get(known, ())
    # What a rollback left behind begins with the records of its point; the others keep their
    # numbers.
    allowed = 1 if "abandoned_by" in execution.metadata else 0
    numbers = [-1, *(link.sequence for link in links)]
    if sum(after != before + 1 for before, after in pairwise(numbers)) > allowed:
        yield issue(IssueKind.MISSING_ROW, known, "a record of a checkpoint and its files is gone")
    tops = [link for link in links if not link.namespace]
    if execution.head is not None and execution.head not in {t.checkpoint_id for t in tops}:
        detail = f"it stands at checkpoint {execution.head}, of which there is no record"
        yield issue(IssueKind.MISSING_ROW, known, detail)
    elif tops and not view.is_live(execution) and links[-1].commit_id != execution.commit_id:
        detail = f"its files are those of {execution.commit_id}, its last record says "
        yield issue(IssueKind.STATE_MISMATCH, known, f"{detail}{links[-1].commit_id}")
    for link in links:
        if link.commit_id is not None and link.commit_id not in view.commits:
            detail = f"files of execution {known} at checkpoint {link.checkpoint_id}"
            yield issue(IssueKind.DANGLING_REFERENCE, link.commit_id, detail)


def _visits(execution: Execution, view: LedgerView) -> Iterator[IntegrityIssue]:
    """Records name the nodes that ended with them: each has a row, here or where it was shared."""
    line = view.line(execution)
    visits = [visit for one in line for visit in view.boundaries.get(one.execution_id, ())]
    exits: dict[str | None, set[str]] = defaultdict(set)
    entries: dict[str | None, set[str]] = defaultdict(set)
    for visit in visits:
        exits[visit.exit_checkpoint_id].add(visit.node)
        entries[visit.entry_checkpoint_id].add(visit.node)
    for link in view.links.get(execution.execution_id, ()):
        for node in link.nodes:
            before = link.checkpoint_id if link.pending else link.parent_checkpoint_id
            if node not in exits[link.checkpoint_id] | entries[before]:
                detail = f"its visit of node {node!r} before {link.checkpoint_id} is not recorded"
                yield issue(IssueKind.MISSING_ROW, execution.execution_id, detail)


def _owners(view: LedgerView) -> Iterator[IntegrityIssue]:
    for batch in view.batches.values():
        if batch.status is BatchStatus.RUNNING and batch.batch_id not in view.live:
            yield issue(
                IssueKind.DEAD_OWNER,
                batch.batch_id,
                "it says running, and the process that ran it is dead",
                MARK_CRASHED,
                {"batch_id": batch.batch_id},
            )
    for execution in view.executions.values():
        if execution.status is ExecutionStatus.RUNNING and not view.is_live(execution):
            yield issue(
                IssueKind.DEAD_OWNER,
                execution.execution_id,
                "it says running, and nobody runs it",
                MARK_CRASHED,
                {"execution_id": execution.execution_id},
            )
