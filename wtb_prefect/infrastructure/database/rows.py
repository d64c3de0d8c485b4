"""The domain's objects as rows, and back: tuples in the order of `tables.row_columns`.

Both adapters go through here, so that what a value looks like after storing is decided once.
Files are in `file_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from wtb_prefect.domain.batch_test import BatchCell, BatchStatus, BatchTest, Owner, StoredCase
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.execution import (
    Execution,
    ExecutionKind,
    ExecutionStatus,
    Inherited,
    Lineage,
)
from wtb_prefect.domain.node_boundary import BoundaryStatus, NodeBoundary
from wtb_prefect.domain.outbox import AuditEntry, OutboxEvent, OutboxEventType, OutboxStatus
from wtb_prefect.domain.workflow import NodeVariant, TestWorkflow, WorkflowEdge, WorkflowNode
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.codecs import (
    failure,
    failure_text,
    json_list,
    json_object,
    json_text,
    json_value,
    names,
    prose,
    time_text,
    time_text_or_none,
    time_value,
    time_value_or_none,
)

Row: TypeAlias = tuple[Any, ...]
Fetched: TypeAlias = Sequence[Any]


def workflow_row(workflow: TestWorkflow) -> Row:
    nodes = [[n.name, n.fingerprint, n.deferred, n.is_subgraph] for n in workflow.nodes]
    edges = [[e.source, e.target, e.conditional] for e in workflow.edges]
    return (
        workflow.workflow_id,
        workflow.name,
        workflow.import_path,
        workflow.fingerprint,
        json_list(nodes),
        json_list(edges),
    )


def workflow_of(row: Fetched) -> TestWorkflow:
    workflow_id, name, import_path, fingerprint, nodes, edges = row
    return TestWorkflow(
        workflow_id=workflow_id,
        name=name,
        import_path=import_path,
        fingerprint=fingerprint,
        nodes=tuple(
            WorkflowNode(name=n, fingerprint=f, deferred=deferred, is_subgraph=subgraph)
            for n, f, deferred, subgraph in json_value(nodes)
        ),
        edges=tuple(
            WorkflowEdge(source=source, target=target, conditional=conditional)
            for source, target, conditional in json_value(edges)
        ),
    )


def variant_row(variant: NodeVariant) -> Row:
    return (
        variant.variant_id,
        variant.workflow_id,
        variant.node,
        variant.name,
        variant.fingerprint,
        variant.version,
        variant.location,
    )


def variant_of(row: Fetched) -> NodeVariant:
    variant_id, workflow_id, node, name, fingerprint, version, location = row
    return NodeVariant(
        variant_id=variant_id,
        workflow_id=workflow_id,
        node=node,
        name=name,
        fingerprint=fingerprint,
        version=version,
        location=location,
    )


def batch_row(batch: BatchTest) -> Row:
    owner = batch.owner
    return (
        batch.batch_id,
        batch.workflow_id,
        batch.name,
        batch.status.value,
        json_object(batch.request),
        time_text(batch.created_at),
        batch.runner,
        owner.host if owner else None,
        owner.pid if owner else None,
        owner.started if owner else None,
        time_text_or_none(batch.started_at),
        time_text_or_none(batch.finished_at),
        batch.node_executions,
    )


def batch_of(row: Fetched) -> BatchTest:
    (
        batch_id, workflow_id, name, status, request, created_at, runner,
        owner_host, owner_pid, owner_started, started_at, finished_at, node_executions,
    ) = row  # fmt: skip
    owned = owner_host is not None
    return BatchTest(
        batch_id=batch_id,
        workflow_id=workflow_id,
        name=name,
        status=BatchStatus(status),
        request=json_value(request),
        created_at=time_value(created_at),
        runner=runner,
        owner=Owner(host=owner_host, pid=owner_pid, started=owner_started) if owned else None,
        started_at=time_value_or_none(started_at),
        finished_at=time_value_or_none(finished_at),
        node_executions=node_executions,
    )


def case_row(case: StoredCase) -> Row:
    return (
        case.batch_id,
        case.case_id,
        case.position,
        case.fingerprint,
        case.encoding,
        case.payload,
    )


def case_of(row: Fetched) -> StoredCase:
    batch_id, case_id, position, fingerprint, encoding, payload = row
    return StoredCase(
        batch_id=batch_id,
        case_id=case_id,
        position=position,
        fingerprint=fingerprint,
        encoding=encoding,
        payload=payload,
    )


def cell_row(cell: BatchCell) -> Row:
    return (
        cell.cell_id,
        cell.batch_id,
        cell.combination,
        cell.case_id,
        cell.repeat,
        cell.key,
        json_object(cell.fingerprints),
        cell.status.value,
        cell.execution_id,
        cell.adopted_from,
        prose(cell.unshared_reason),
        json_list(cell.stale),
    )


def cell_of(row: Fetched) -> BatchCell:
    (
        cell_id, batch_id, combination, case_id, repeat, key, fingerprints, status,
        execution_id, adopted_from, unshared_reason, stale,
    ) = row  # fmt: skip
    return BatchCell(
        cell_id=cell_id,
        batch_id=batch_id,
        combination=combination,
        case_id=case_id,
        repeat=repeat,
        key=key,
        fingerprints=json_value(fingerprints),
        status=ExecutionStatus(status),
        execution_id=execution_id,
        adopted_from=adopted_from,
        unshared_reason=unshared_reason,
        stale=names(stale),
    )


def execution_row(execution: Execution) -> Row:
    lineage = execution.lineage
    return (
        execution.execution_id,
        execution.workflow_id,
        execution.kind.value,
        execution.status.value,
        json_object(execution.choices),
        time_text(execution.created_at),
        execution.batch_id,
        execution.case_id,
        execution.repeat,
        json_list(execution.path),
        json_list(execution.gated),
        lineage.parent_id if lineage else None,
        lineage.checkpoint_id if lineage else None,
        lineage.commit_id if lineage else None,
        execution.head,
        execution.step,
        execution.commit_id,
        json_list(execution.split_nodes),
        json_list(execution.next_nodes),
        failure_text(execution.error),
        prose(execution.unshared_reason),
        execution.node_executions,
        execution.cache_hits,
        execution.retries,
        json_object(execution.answers),
        execution.root_key,
        None if execution.inherited is None else json_text(asdict(execution.inherited)),
        execution.input_tokens,
        execution.output_tokens,
        execution.duration,
        time_text_or_none(execution.finished_at),
        json_object(execution.metadata),
    )


def execution_of(row: Fetched) -> Execution:
    (
        execution_id, workflow_id, kind, status, choices, created_at, batch_id, case_id, repeat,
        path, gated, parent_id, parent_checkpoint_id, parent_commit_id, head, step, commit_id,
        split_nodes, next_nodes, error, unshared_reason, node_executions, cache_hits, retries,
        answers, root_key, inherited, input_tokens, output_tokens, duration, finished_at, metadata,
    ) = row  # fmt: skip
    return Execution(
        execution_id=execution_id,
        workflow_id=workflow_id,
        kind=ExecutionKind(kind),
        status=ExecutionStatus(status),
        choices=json_value(choices),
        created_at=time_value(created_at),
        batch_id=batch_id,
        case_id=case_id,
        repeat=repeat,
        path=tuple((node, variant) for node, variant in json_value(path)),
        gated=names(gated),
        lineage=_lineage(parent_id, parent_checkpoint_id, parent_commit_id),
        head=head,
        step=step,
        commit_id=commit_id,
        split_nodes=names(split_nodes),
        next_nodes=names(next_nodes),
        error=failure(error),
        unshared_reason=unshared_reason,
        node_executions=node_executions,
        cache_hits=cache_hits,
        retries=retries,
        answers=json_value(answers),
        root_key=root_key,
        inherited=None if inherited is None else Inherited(**json_value(inherited)),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        duration=duration,
        finished_at=time_value_or_none(finished_at),
        metadata=json_value(metadata),
    )


def _lineage(parent_id: str | None, checkpoint_id: Any, commit_id: str | None) -> Lineage | None:
    if parent_id is None:
        return None
    return Lineage(parent_id=parent_id, checkpoint_id=checkpoint_id, commit_id=commit_id)


def boundary_row(boundary: NodeBoundary) -> Row:
    return (
        boundary.execution_id,
        boundary.task_id,
        boundary.node,
        boundary.step,
        boundary.variant,
        boundary.fingerprint,
        boundary.status.value,
        boundary.entry_checkpoint_id,
        boundary.exit_checkpoint_id,
        time_text(boundary.started_at),
        boundary.duration,
        boundary.calls,
        failure_text(boundary.error),
        boundary.input_tokens,
        boundary.output_tokens,
        boundary.namespace,
        boundary.cached,
    )


def boundary_of(row: Fetched) -> NodeBoundary:
    (
        execution_id, task_id, node, step, variant, fingerprint, status, entry_checkpoint_id,
        exit_checkpoint_id, started_at, duration, calls, error, input_tokens, output_tokens,
        namespace, cached,
    ) = row  # fmt: skip
    return NodeBoundary(
        execution_id=execution_id,
        task_id=task_id,
        node=node,
        step=step,
        variant=variant,
        fingerprint=fingerprint,
        status=BoundaryStatus(status),
        entry_checkpoint_id=entry_checkpoint_id,
        exit_checkpoint_id=exit_checkpoint_id,
        started_at=time_value(started_at),
        duration=duration,
        calls=calls,
        error=failure(error),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        namespace=namespace,
        cached=bool(cached),
    )


def result_row(result: EvaluationResult) -> Row:
    if result.number is not None and math.isnan(result.number):
        # SQLite stores NaN as NULL: the score would come back as "none", without an error.
        raise LedgerError(f"the score {result.metric!r} of {result.execution_id} is NaN")
    return (
        result.execution_id,
        result.evaluator,
        result.metric,
        result.number,
        prose(result.label),
        result.goal,
        result.primary,
        result.fingerprint,
        time_text(result.created_at),
        prose(result.error),
        prose(result.traceback),
    )


def result_of(row: Fetched) -> EvaluationResult:
    (
        execution_id, evaluator, metric, number, label, goal, primary, fingerprint, created_at,
        error, traceback,
    ) = row  # fmt: skip
    return EvaluationResult(
        execution_id=execution_id,
        evaluator=evaluator,
        metric=metric,
        number=number,
        label=label,
        goal=goal,
        primary=bool(primary),
        fingerprint=fingerprint,
        created_at=time_value(created_at),
        error=error,
        traceback=traceback,
    )


def event_row(event: OutboxEvent) -> Row:
    return (
        event.event_id,
        event.type.value,
        event.aggregate_id,
        json_object(event.payload),
        time_text(event.created_at),
        event.status.value,
        event.attempts,
        time_text_or_none(event.next_at),
        time_text_or_none(event.lease_until),
        time_text_or_none(event.processed_at),
        prose(event.last_error),
    )


def event_of(row: Fetched) -> OutboxEvent:
    (
        event_id, type_, aggregate_id, payload, created_at, status, attempts, next_at,
        lease_until, processed_at, last_error,
    ) = row  # fmt: skip
    return OutboxEvent(
        event_id=event_id,
        type=OutboxEventType(type_),
        aggregate_id=aggregate_id,
        payload=json_value(payload),
        created_at=time_value(created_at),
        status=OutboxStatus(status),
        attempts=attempts,
        next_at=time_value_or_none(next_at),
        lease_until=time_value_or_none(lease_until),
        processed_at=time_value_or_none(processed_at),
        last_error=last_error,
    )


def audit_row(entry: AuditEntry) -> Row:
    details = json_object(entry.details)
    return (time_text(entry.at), entry.actor, entry.action, entry.subject, details)


def audit_of(row: Fetched) -> AuditEntry:
    at, actor, action, subject, details = row
    return AuditEntry(
        at=time_value(at),
        actor=actor,
        action=action,
        subject=subject,
        details=json_value(details),
    )
