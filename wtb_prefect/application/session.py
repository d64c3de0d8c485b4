"""Everything a use case needs at hand, for one project and one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wtb_prefect.application.retry_policy import Backoff
from wtb_prefect.domain.batch_test import Case, RunOptions, StoredCase, VariantCombination
from wtb_prefect.domain.evaluation import EvaluatorSpec
from wtb_prefect.domain.events import Tell
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import digest, stable_id
from wtb_prefect.domain.interfaces.case_codec import CaseCodec
from wtb_prefect.domain.interfaces.checkpoint_store import CheckpointStore
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.domain.interfaces.surroundings import Surroundings
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import WorkflowEngine
from wtb_prefect.domain.interfaces.workspace import WorkspaceStore
from wtb_prefect.domain.mock_node import NodeMock
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.project import ProjectDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One project with its stores open.

    `tell` is told what happens and is no claim of the ledger; what is, its units of work tell.
    `resolve` imports what an import path names; `fingerprint` identifies the code of a function.
    `answer_functions` are those of the cases of this process, by case id: a function need not be
    importable here.
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
    tell: Tell
    surroundings: Surroundings
    resolve: Callable[[str], Any]
    fingerprint: Callable[[Any], str]
    answer_functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def evaluators(self) -> tuple[EvaluatorSpec, ...]:
        """The project's evaluators, in the order declared."""
        return self.project.evaluators


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFingerprints:
    """What a case is made of, apart: `case` is its state and files, which every node may read.

    `expected` only evaluators see, `answers` (None: there are none) only nodes that ask.
    """

    case: str
    expected: str
    answers: str | None

    @property
    def of_run(self) -> str:
        """What an execution of the case depends on: other answers are another execution."""
        return self.case if self.answers is None else digest("run", self.case, self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCase:
    """A case, its fingerprints, and the commit its executions start with (None: no files)."""

    case: Case
    fingerprints: CaseFingerprints
    commit_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What earlier runs recorded of one case and repeat: executions by id, oldest first, with
    their records and visits."""

    executions: Mapping[str, Execution]
    links: Mapping[str, Sequence[CheckpointFileLink]]
    boundaries: Mapping[str, Sequence[NodeBoundary]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchScope:
    """What the segments of a batch share: its combinations and what every answer depends on.

    `began` is when this run of the batch was claimed: what ended before it ended in an earlier one.
    `reuse` is the name within which results are taken over, `has_past` whether there is anything
    to take over at all: where there is not, no stretch looks for it. `marks` are kept with every
    execution.
    """

    batch_id: str
    combinations: Mapping[str, VariantCombination]
    roots: Sequence[str]
    options: RunOptions
    began: datetime
    reuse: str = ""
    has_past: bool = False
    mocks: tuple[NodeMock, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    recent_cases: dict[str, StoredCase] = field(default_factory=dict)
    recent_pasts: dict[str, Past] = field(default_factory=dict)

    def cell_id(self, case_id: str, repeat: int, combination: str) -> str:
        """The id of a cell: made from its place in the batch."""
        return cell_id_of(self.batch_id, case_id, repeat, combination)


def cell_id_of(batch_id: str, case_id: str, repeat: int, combination: str) -> str:
    """The same place in the same batch is the same cell."""
    return stable_id("cell", batch_id, case_id, repeat, combination)
