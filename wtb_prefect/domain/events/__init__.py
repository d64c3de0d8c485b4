"""What happens in a test bench, as typed events: each is told after the ledger has it.

`name` is `<noun>.<past verb>`. Events are recorded in the unit of work that makes them true
(`UnitOfWork.record`): it writes them to the audit log in the same transaction and publishes them
once that is committed. Those `of_steps` come many times per execution; their facts have tables of
their own (visits, checkpoints, commits), so the audit log leaves them out and Prefect is told of
them only when asked. Those of workspaces and `node.started` are told directly: the ledger makes
no claim about folders, nor about bodies that are still running.
"""

from wtb_prefect.domain.events.base import (
    DomainEvent,
    Tell,
    audit_entry,
    tell_nobody,
)
from wtb_prefect.domain.events.batch_events import (
    BatchCancelled,
    BatchEnded,
    BatchEvent,
    BatchFailed,
    BatchFinished,
    BatchInterrupted,
    BatchStarted,
    VariantCompleted,
    WorkerStarted,
)
from wtb_prefect.domain.events.checkpoint_events import (
    CheckpointBranched,
    CheckpointCreated,
    CheckpointEvent,
    CheckpointRolledBack,
    checkpoint_created,
)
from wtb_prefect.domain.events.claim_events import ClaimFailed
from wtb_prefect.domain.events.execution_events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionCrashed,
    ExecutionEvent,
    ExecutionFailed,
    ExecutionForked,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    ExecutionStopped,
    started,
    stopped,
)
from wtb_prefect.domain.events.file_events import (
    FileEvent,
    FilesCommitted,
    FilesRestored,
    FilesVerified,
    files_committed,
)
from wtb_prefect.domain.events.node_events import (
    NodeCompleted,
    NodeEnded,
    NodeEvent,
    NodeFailed,
    NodeSkipped,
    NodeStarted,
    node_ended,
    node_started,
)
from wtb_prefect.domain.events.workspace_events import (
    WorkspaceActivated,
    WorkspaceCleanedUp,
    WorkspaceCreated,
    WorkspaceEvent,
    WorkspaceForked,
)

__all__ = [
    "BatchCancelled",
    "BatchEnded",
    "BatchEvent",
    "BatchFailed",
    "BatchFinished",
    "BatchInterrupted",
    "BatchStarted",
    "CheckpointBranched",
    "CheckpointCreated",
    "CheckpointEvent",
    "CheckpointRolledBack",
    "ClaimFailed",
    "DomainEvent",
    "ExecutionCancelled",
    "ExecutionCompleted",
    "ExecutionCrashed",
    "ExecutionEvent",
    "ExecutionFailed",
    "ExecutionForked",
    "ExecutionPaused",
    "ExecutionResumed",
    "ExecutionRetried",
    "ExecutionStarted",
    "ExecutionStopped",
    "FileEvent",
    "FilesCommitted",
    "FilesRestored",
    "FilesVerified",
    "NodeCompleted",
    "NodeEnded",
    "NodeEvent",
    "NodeFailed",
    "NodeSkipped",
    "NodeStarted",
    "Tell",
    "VariantCompleted",
    "WorkerStarted",
    "WorkspaceActivated",
    "WorkspaceCleanedUp",
    "WorkspaceCreated",
    "WorkspaceEvent",
    "WorkspaceForked",
    "audit_entry",
    "checkpoint_created",
    "files_committed",
    "node_ended",
    "node_started",
    "started",
    "stopped",
    "tell_nobody",
]
