"""Objects for ledger tests: every field set, so that a column left out shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from wtb_prefect.domain.batch_test import BatchCell, BatchStatus, BatchTest, Owner, StoredCase
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.execution import (
    Execution,
    ExecutionKind,
    ExecutionStatus,
    Inherited,
    Lineage,
    NodeFailure,
)
from wtb_prefect.domain.execution_control import ExecutionControl
from wtb_prefect.domain.file_processing import (
    CheckpointFileLink,
    FileCommit,
    FileMemento,
    commit_id_of,
)
from wtb_prefect.domain.identifiers import BlobId, CheckpointId, digest
from wtb_prefect.domain.node_boundary import BoundaryStatus, NodeBoundary
from wtb_prefect.domain.node_result import NodeResult
from wtb_prefect.domain.outbox import AuditEntry, OutboxEvent, OutboxEventType, OutboxStatus
from wtb_prefect.domain.workflow import NodeVariant, TestWorkflow, WorkflowEdge, WorkflowNode

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
TEXT = "Grüße, 東京 🗼 'quoted' \"twice\"\nnext line"


def later(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


def failure() -> NodeFailure:
    return NodeFailure(node="answer", type="ValueError", message=TEXT, traceback="Traceback …")


def workflow(workflow_id: str = "w", name: str = "qa") -> TestWorkflow:
    return TestWorkflow(
        workflow_id=workflow_id,
        name=name,
        import_path="examples.qa:graph",
        fingerprint="f1",
        nodes=(
            WorkflowNode(name="retrieve", fingerprint="f2", deferred=True),
            WorkflowNode(name="answer", fingerprint="f3", is_subgraph=True),
        ),
        edges=(
            WorkflowEdge(source="retrieve", target="answer"),
            WorkflowEdge(source="answer", target="retrieve", conditional=True),
        ),
    )


def variant(node: str, name: str, fingerprint: str = "f", workflow_id: str = "w") -> NodeVariant:
    return NodeVariant(
        variant_id=digest(workflow_id, node, name, fingerprint),
        workflow_id=workflow_id,
        node=node,
        name=name,
        fingerprint=fingerprint,
        version="2",
        location="examples/qa.py:17",
    )


def batch(batch_id: str = "b", workflow_id: str = "w", seconds: int = 0) -> BatchTest:
    return BatchTest(
        batch_id=batch_id,
        workflow_id=workflow_id,
        name=TEXT,
        status=BatchStatus.INTERRUPTED,
        request={"matrix": {"answer": ["short", "größer"]}, "repeats": 3, "share": True},
        created_at=later(seconds),
        runner="ray",
        owner=Owner(host="box", pid=4711, started=1772368215.25),
        started_at=later(seconds + 1),
        finished_at=later(seconds + 2),
        node_executions=12,
    )


def case(case_id: str, position: int = 0, batch_id: str = "b") -> StoredCase:
    return StoredCase(
        batch_id=batch_id,
        case_id=case_id,
        position=position,
        fingerprint="f",
        encoding="msgpack",
        payload=b"\x00\xff\x80 bytes",
    )


def cell(
    cell_id: str,
    *,
    case_id: str = "q1",
    repeat: int = 0,
    combination: str = "baseline",
    key: str = "k",
    status: ExecutionStatus = ExecutionStatus.PENDING,
    execution_id: str | None = None,
    batch_id: str = "b",
) -> BatchCell:
    return BatchCell(
        cell_id=cell_id,
        batch_id=batch_id,
        combination=combination,
        case_id=case_id,
        repeat=repeat,
        key=key,
        fingerprints={"graph": "f1", "node:answer": "f2"},
        status=status,
        execution_id=execution_id,
        adopted_from="another cell",
        unshared_reason=TEXT,
        stale=("node größe", "graph"),
    )


def execution(
    execution_id: str = "e",
    *,
    parent_id: str | None = None,
    batch_id: str | None = None,
    workflow_id: str = "w",
    seconds: int = 0,
) -> Execution:
    return Execution(
        execution_id=execution_id,
        workflow_id=workflow_id,
        kind=ExecutionKind.SEGMENT,
        status=ExecutionStatus.FAILED,
        choices={"answer": "short"},
        created_at=later(seconds),
        batch_id=batch_id,
        case_id="q1",
        repeat=2,
        path=(("retrieve", "bm25"), ("answer", "short")),
        gated=("answer",),
        lineage=Lineage(parent_id=parent_id, checkpoint_id=CheckpointId("c0"), commit_id=None)
        if parent_id
        else None,
        head=CheckpointId("c1"),
        step=3,
        split_nodes=("answer",),
        next_nodes=("answer", "judge"),
        error=failure(),
        unshared_reason=TEXT,
        node_executions=4,
        cache_hits=5,
        retries=2,
        answers={"q": 2, "r": 0},
        root_key="root",
        inherited=Inherited(
            node_executions=7,
            cache_hits=1,
            input_tokens=8,
            output_tokens=9,
            duration=0.5,
            pending=True,
        ),
        input_tokens=5,
        output_tokens=6,
        duration=1.25,
        finished_at=later(seconds + 5),
        metadata={"note": TEXT, "deep": {"list": [1, 2.5, None, False]}},
    )


def boundary(task_id: str, execution_id: str = "e", step: int = 1) -> NodeBoundary:
    return NodeBoundary(
        execution_id=execution_id,
        task_id=task_id,
        node="answer",
        step=step,
        variant="short",
        fingerprint="f",
        status=BoundaryStatus.FAILED,
        entry_checkpoint_id=CheckpointId("c0"),
        exit_checkpoint_id=None,
        started_at=NOW,
        duration=0.125,
        calls=2,
        error=failure(),
        input_tokens=7,
        output_tokens=8,
        namespace="outer:t1",
        cached=True,
    )


def memento(path: str, content: str = "") -> FileMemento:
    return FileMemento(path=path, blob_id=BlobId(digest(content)), size=len(content))


def commit(
    *changed: FileMemento, parent: FileCommit | None = None, removed: tuple[str, ...] = ()
) -> FileCommit:
    parent_id = parent.commit_id if parent else None
    return FileCommit(
        commit_id=commit_id_of(parent_id, changed, removed),
        parent_id=parent_id,
        execution_id="e",
        changed=changed,
        removed=removed,
        created_at=NOW,
    )


def link(sequence: int, checkpoint_id: str = "c1", execution_id: str = "e") -> CheckpointFileLink:
    return CheckpointFileLink(
        execution_id=execution_id,
        checkpoint_id=CheckpointId(checkpoint_id),
        commit_id=None,
        pending=True,
        sequence=sequence,
        step=4,
        created_at=NOW,
        parent_checkpoint_id=CheckpointId("c0"),
        nodes=("retrieve", "größe"),
        namespace="outer:t1",
        answers=2,
        exact=False,
        store_id=BlobId(digest("store")),
    )


def node_result(key: str = "k", workflow_id: str = "w", payload: bytes = b"\x00p") -> NodeResult:
    return NodeResult(
        key=key,
        workflow_id=workflow_id,
        node="outer|index",
        fingerprint="f",
        encoding="msgpack",
        payload=payload,
        changed=(memento("größe/a.txt", "a"),),
        removed=("b.txt",),
        seconds=1.25,
        created_at=NOW,
        execution_id="gone",
    )


def result(
    evaluator: str, metric: str, number: float | None = 0.5, execution_id: str = "e"
) -> EvaluationResult:
    return EvaluationResult(
        execution_id=execution_id,
        evaluator=evaluator,
        metric=metric,
        number=number,
        label=None,
        goal="min",
        primary=True,
        fingerprint="f",
        created_at=NOW,
        error=None if number is not None else TEXT,
        traceback=None if number is not None else TEXT,
    )


def event(event_id: str, status: OutboxStatus = OutboxStatus.PENDING) -> OutboxEvent:
    return OutboxEvent(
        event_id=event_id,
        type=OutboxEventType.FILE_COMMIT_VERIFY,
        aggregate_id="e",
        payload={"subject": TEXT},
        created_at=NOW,
        status=status,
        attempts=2,
        next_at=later(1),
        lease_until=later(2),
        processed_at=later(3),
        last_error=TEXT,
    )


def audit(subject: str, action: str = "batch.started") -> AuditEntry:
    return AuditEntry(at=NOW, actor="run_batch", action=action, subject=subject, details={"n": 1})


def control(execution_id: str = "e") -> ExecutionControl:
    return ExecutionControl(
        execution_id=execution_id,
        owner=Owner(host="h", pid=7, started=1.5),
        asked=None,
        breakpoints=("outer|inner", TEXT),
        graph="module:build",
        encoding="msgpack",
        payload=b"\x00state",
    )
