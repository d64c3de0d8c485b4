"""A batch test: combinations x cases x repeats = cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from wtb_prefect.domain.execution import ExecutionStatus, NodeFailure
from wtb_prefect.domain.workflow import ORIGINAL

BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class VariantCombination:
    """One choice of variant for every node that has variants: (node, variant), sorted by node."""

    choices: tuple[tuple[str, str], ...]

    @staticmethod
    def of(choices: Mapping[str, str]) -> VariantCombination:
        """The combination of a mapping node -> variant."""
        return VariantCombination(tuple(sorted(choices.items())))

    @staticmethod
    def named(name: str) -> VariantCombination:
        """The combination of a canonical name; nodes with their original are not in it."""
        parts = [] if name == BASELINE else name.split(",")
        pairs = [part.partition("=") for part in parts]
        return VariantCombination.of({node: variant for node, _, variant in pairs})

    @property
    def name(self) -> str:
        """The canonical name: `"answer=short,retrieve=bm25"`, or `"baseline"`."""
        parts = [f"{node}={variant}" for node, variant in self.choices if variant != ORIGINAL]
        return ",".join(parts) or BASELINE

    def variant_of(self, node: str) -> str:
        """The choice for a node; a node that is not named keeps its original."""
        return dict(self.choices).get(node, ORIGINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input of a batch test.

    `files` maps a relative path to its text, its bytes, or a `pathlib.Path` to copy from (once
    stored: to a `FileMemento`).
    """

    id: str
    state: Mapping[str, Any]
    expected: Any = None
    files: Mapping[str, Any] = field(default_factory=dict)
    answers: Sequence[Any] | Callable[..., Any] | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCase:
    """A case as the ledger keeps it: serialised, so that workers read it by reference."""

    batch_id: str
    case_id: str
    position: int
    fingerprint: str
    encoding: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a batch is run; results do not depend on it.

    `time_limit` is in seconds and for one cell, its shared prefix included (None: no limit).
    `retries` are attempts after a transient error, per execution. `retry_failed` runs failed cells
    again, `fail_fast` stops at the first failed cell, `keep_stale` leaves stale cells as they are,
    `self_check` cells of the batch are also run unshared and compared. `use_cache`: nodes declared
    as cached are answered from the node result cache, and their results are kept in it. `record`
    are nodes whose outputs are kept, to be replayed by later batches.
    """

    time_limit: float | None = None
    retries: int = 3
    retry_failed: bool = False
    fail_fast: bool = False
    keep_stale: bool = False
    self_check: int = 0
    use_cache: bool = True
    record: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values, as the ledger keeps them with the request."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> RunOptions:
        """From what `to_json` gave, of this version or an earlier one."""
        return RunOptions(**{**data, "record": tuple(data.get("record", ()))})


class BatchStatus(StrEnum):
    """Where a batch test stands; `completed` means every cell has its end, failed ones included.

    `partial`: so have those that were asked for, others were left out by a filter. `deleting`:
    nothing in it counts any more; deleting it was begun and can only be finished.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that runs a batch. Pids are used again, so its start time is kept too."""

    host: str
    pid: int
    started: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTest:
    """One request. `request` is its JSON form (matrix, cases by id and fingerprint, repeats)."""

    batch_id: str
    workflow_id: str
    name: str
    status: BatchStatus
    request: Mapping[str, Any]
    created_at: datetime
    runner: str | None = None
    owner: Owner | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    node_executions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCell:
    """One cell: combination x case x repeat, and the execution that answers it.

    `fingerprints` are what the answer depends on, by name (graph, node:<name>, evaluator:<name>,
    case, base_workspace): a cell whose fingerprints differ from today's is stale. `key` is their
    digest together with project, case and combination: cells with equal keys have equal answers.
    `stale` names what has changed since the answer was made, if it was kept on request.
    """

    cell_id: str
    batch_id: str
    combination: str
    case_id: str
    repeat: int
    key: str
    fingerprints: Mapping[str, str]
    status: ExecutionStatus = ExecutionStatus.PENDING
    execution_id: str | None = None
    adopted_from: str | None = None
    unshared_reason: str | None = None
    stale: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One cell as results show it.

    `scores` maps metric -> number or label; failed evaluators are in `score_errors`. `duration`
    (seconds), node bodies, tokens and `retries` (attempts after a transient error) include the
    shared prefix. `stale` names what has changed since, if the cell was kept on request.
    """

    cell_id: str
    combination: str
    case_id: str
    repeat: int
    execution_id: str | None
    status: ExecutionStatus
    scores: Mapping[str, float | str]
    score_errors: Mapping[str, str]
    error: NodeFailure | None
    duration: float
    node_executions: int
    cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unshared_reason: str | None = None
    stale: tuple[str, ...] = ()
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """One metric of one combination over its scored cells: mean, standard deviation, n, labels."""

    mean: float | None
    spread: float | None
    n: int
    goal: str = "max"
    primary: bool = False
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTestResult:
    """One row of the comparison: a combination's counts and the summary of each metric."""

    combination: str
    metrics: Mapping[str, MetricSummary]
    cells: int
    completed: int
    failed: int
    crashed: int
    paused: int
    missing: int
    evaluator_failures: int
    mean_duration: float | None
