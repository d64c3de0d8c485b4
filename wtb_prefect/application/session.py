"""Everything a use case needs at hand, for one project and one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wtb_prefect.domain.batch_test import Case, RunOptions, StoredCase, VariantCombination
from wtb_prefect.domain.evaluation import EvaluatorSpec
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.interfaces.case_codec import CaseCodec
from wtb_prefect.domain.interfaces.checkpoint_store import CheckpointStore
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.domain.interfaces.surroundings import Surroundings
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import WorkflowEngine
from wtb_prefect.domain.interfaces.workspace import WorkspaceStore
from wtb_prefect.domain.project import ProjectDefinition

Announce = Callable[[Execution], None]


def announce_nothing(execution: Execution) -> None:
    """Where nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One project with its stores open.

    `announce` is told of each execution that ended, after its rows are durable. `resolve` imports
    what an import path names; `fingerprint` identifies the code of a function. `answer_functions`
    are those of the cases of this process, by case id: a function need not be importable here.
    """

    project: ProjectDefinition
    engine: WorkflowEngine
    open_uow: OpenUnitOfWork
    checkpoints: CheckpointStore
    tracker: FileTracker
    workspaces: WorkspaceStore
    codec: CaseCodec
    clock: Clock
    evaluator_fingerprints: Mapping[str, str]
    announce: Announce
    surroundings: Surroundings
    resolve: Callable[[str], Any]
    fingerprint: Callable[[Any], str]
    answer_functions: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def evaluators(self) -> tuple[EvaluatorSpec, ...]:
        """The project's evaluators, in the order declared."""
        return self.project.evaluators


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCase:
    """A case, its fingerprint, and the commit its executions start with (None: no files)."""

    case: Case
    fingerprint: str
    commit_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchScope:
    """What the segments of a batch share: its combinations and what every answer depends on.

    `began` is when this run of the batch was claimed: what ended before it ended in an earlier one.
    """

    batch_id: str
    combinations: Mapping[str, VariantCombination]
    roots: Sequence[str]
    options: RunOptions
    began: datetime
    recent_cases: dict[str, StoredCase] = field(default_factory=dict)

    def cell_id(self, case_id: str, repeat: int, combination: str) -> str:
        """The id of a cell: made from its place in the batch."""
        return cell_id_of(self.batch_id, case_id, repeat, combination)


def cell_id_of(batch_id: str, case_id: str, repeat: int, combination: str) -> str:
    """The same place in the same batch is the same cell."""
    return stable_id("cell", batch_id, case_id, repeat, combination)
