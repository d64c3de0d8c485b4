"""What an audit of ledger, checkpoints and files finds, and what can be done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class IssueKind(StrEnum):
    """What is wrong."""

    DANGLING_REFERENCE = "dangling_reference"
    MISSING_ROW = "missing_row"
    STATE_MISMATCH = "state_mismatch"
    MISSING_CHECKPOINT = "missing_checkpoint"
    DAMAGED_CHECKPOINT = "damaged_checkpoint"
    ORPHAN_CHECKPOINT = "orphan_checkpoint"
    ORPHAN_WRITES = "orphan_writes"
    MISSING_BLOB = "missing_blob"
    DAMAGED_BLOB = "damaged_blob"
    ORPHAN_BLOB = "orphan_blob"
    ORPHAN_COMMIT = "orphan_commit"
    OUTBOX_STUCK = "outbox_stuck"
    DEAD_OWNER = "dead_owner"


class Severity(StrEnum):
    """`info` takes up space and harms nothing; `warning` is put right by going on or by repair;
    `critical`: something that the ledger promises is not there."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class RepairAction(StrEnum):
    """What repair does about it; `manual`: nothing, a person has to decide."""

    DELETE_ORPHAN = "delete_orphan"
    RELINK = "relink"
    RESTORE_COPY = "restore_copy"
    MARK_CRASHED = "mark_crashed"
    RETRY = "retry"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityIssue:
    """One thing that is wrong. `subject` is the id it is about (a blob's hash, an execution's id),
    `about` what the repair works on, `repaired` is set by a repair."""

    kind: IssueKind
    severity: Severity
    subject: str
    action: RepairAction
    detail: str
    about: Mapping[str, str] = field(default_factory=dict)
    repaired: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same issue when it is looked for again."""
        return self.kind, self.subject, self.detail

    def __str__(self) -> str:
        done = ", repaired" if self.repaired else ""
        return f"{self.severity} {self.kind} {self.subject}: {self.detail} ({self.action}{done})"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityReport:
    """An audit of all stores. `checked` counts what was looked at, by its kind."""

    at: datetime
    deep: bool
    checked: Mapping[str, int]
    issues: tuple[IntegrityIssue, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong that was not repaired, but for what only takes up space."""
        return not any(i.severity is not Severity.INFO and not i.repaired for i in self.issues)

    @property
    def by_severity(self) -> Mapping[str, int]:
        """Issues that are left, by severity; each severity is there."""
        found = Counter(str(issue.severity) for issue in self.issues if not issue.repaired)
        return {str(severity): found.get(str(severity), 0) for severity in Severity}

    def __str__(self) -> str:
        looked = ", ".join(f"{count} {name}" for name, count in self.checked.items())
        head = "healthy" if self.healthy else "not healthy"
        return "\n".join([f"{head}: {looked}", *map(str, self.issues)])
