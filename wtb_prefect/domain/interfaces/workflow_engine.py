"""Running a graph on one thread, stopping where combinations differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from wtb_prefect.domain.execution import ExecutionState, NodeFailure
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.mock_node import Mocks
from wtb_prefect.domain.node_result import NodeResult, NodeStart, ReturnValue
from wtb_prefect.domain.workflow import TestWorkflow


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStart:
    """A node of the super-step that begins; `replayed` when its writes are pending already.

    `node` is its path (`outer|inner`), `namespace` that of its graph's checkpoints (empty for the
    top graph). `opened`: it is a subgraph whose own nodes are reported.
    """

    task_id: str
    node: str
    namespace: str = ""
    replayed: bool = False
    opened: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCheckpoint:
    """A checkpoint that was just saved; `exact` as in `CheckpointFileLink`."""

    checkpoint_id: CheckpointId
    parent_id: CheckpointId | None
    step: int
    namespace: str = ""
    exact: bool = True


class StepObserver(Protocol):
    """Told of everything LangGraph records, in the order that keeps the stores consistent.

    Calls come from one event loop, one at a time.
    """

    def task_started(self, task: TaskStart) -> None:
        """One task of the super-step; all of them are named before any of them runs."""
        ...

    async def task_finished(self, task_id: str, namespace: str, usage: tuple[int, int]) -> bool:
        """A task's writes exist but are not saved. `usage` = (input, output) tokens.

        Returns whether they have to be saved as pending writes: not when the task is alone in its
        step, because the checkpoint follows at once and makes them redundant.
        """
        ...

    def task_saved(self, task_id: str) -> None:
        """The task's pending writes are in the checkpoint store."""
        ...

    def task_failed(self, task_id: str, error: NodeFailure) -> None: ...

    def body_called(self, task_id: str, node: str, namespace: str) -> None:
        """A node's implementation is being called for a task. Error handlers are not announced by
        `task_started`: this is the first that is heard of them."""
        ...

    def answered(self, given: Mapping[str, int]) -> None:
        """Questions are about to be answered: question -> which of the answers, from 0."""
        ...

    def store_opened(self, changed: Callable[[], bytes | None]) -> None:
        """The run has a store; `changed` gives its content, or None if it is as it was when last
        asked."""
        ...

    async def node_start(self, task_id: str) -> NodeStart | None:
        """What a task starts with; None if its result can neither be kept nor replaced.

        A task that does not run alone shares its files with its siblings, and one that is tried
        again finds what it left behind before.
        """
        ...

    async def replay(self, result: NodeResult) -> None:
        """No body runs for the task that started: this earlier result of it is used, and what it
        did to the files is done again."""
        ...

    def keep_result(self, task_id: str, value: ReturnValue) -> None:
        """What the task returned is to be kept, with its files, when its super-step is recorded."""
        ...

    async def output_returned(self, task_id: str, place: str, output: Any) -> None:
        """What a node returned for a task, where the batch records that node."""
        ...

    async def checkpoint_coming(self) -> None:
        """A checkpoint is about to be saved: the files have to be durable first."""
        ...

    def checkpoint_saved(self, saved: SavedCheckpoint) -> None: ...


class AnswerSource(Protocol):
    """Answers to `interrupt()`."""

    @property
    def is_ordered(self) -> bool:
        """Whether the answer depends on the question's place, not on the question."""
        ...

    async def answer(self, index: int, question: Any) -> tuple[Any] | None:
        """The answer to the question that is the `index`-th of its execution, from 0; None if
        there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Where a controlled execution stops: always between super-steps, before any body of the next.

    `breakpoints` are paths of nodes to stop before, `stepping` stops before every super-step of the
    top graph; neither does where the run begins. `is_asked` says whether to stop in any case.
    """

    breakpoints: frozenset[str]
    is_asked: Callable[[], bool]
    stepping: bool = False


class StopKind(StrEnum):
    """Why the engine handed control back; `HELD`: because it was asked to stop there."""

    COMPLETED = "completed"
    GATE = "gate"
    INTERRUPTED = "interrupted"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Where an execution stands now.

    `gates` are the gated nodes about to run (in the order the engine met them); `not_shareable`
    says why a copy of the checkpoint would not equal the live run, if so. `transient`: the error
    may be gone at the next attempt, which should come `retry_after` seconds later or more.
    """

    kind: StopKind
    gates: tuple[str, ...] = ()
    next_nodes: tuple[str, ...] = ()
    not_shareable: str | None = None
    error: NodeFailure | None = None
    transient: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLabels:
    """What tracing tools show of a run and filter it by."""

    name: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What to run: a thread, from `input` (a fresh start) or from its `head` (`input` None).

    `subgraphs_under_way`: subgraphs of the super-step at the head go on where they stand.
    `answered` are the questions answered so far; `store` is the content of the run's store. `mocks`
    are answered for instead of run; what the nodes `kept` return is told to the observer.

    `hold` says before which super-steps to stop. `edit` is applied to the state first, as if the
    last node had returned it; `resume` are answers to the questions open at the head, by their ids.
    """

    thread_id: str
    choices: Mapping[str, str]
    gated: frozenset[str]
    input: Mapping[str, Any] | None
    step: int
    head: CheckpointId | None
    workspace: Workspace
    tags: Mapping[str, str]
    subgraphs_under_way: bool = False
    answers: AnswerSource | None = None
    answered: Mapping[str, int] = field(default_factory=dict)
    store: bytes | None = None
    trace: TraceLabels = field(default_factory=TraceLabels)
    mocks: Mocks = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    hold: Hold | None = None
    edit: Mapping[str, Any] | None = None
    resume: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a node asked with `interrupt()`, under LangGraph's id of the question."""

    id: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What would run next from a checkpoint, and the questions open there.

    `asking` are the tasks that ask, and those of the subgraphs around them.
    """

    next_nodes: tuple[str, ...]
    questions: tuple[Question, ...] = ()
    asking: frozenset[str] = frozenset()


class WorkflowEngine(Protocol):
    """A graph with its variants, able to run any choice of them."""

    def describe(self) -> TestWorkflow: ...

    def variant_fingerprint(self, node: str, variant: str) -> str: ...

    def implementation_of(self, node: str, choices: Mapping[str, str]) -> tuple[str, str]:
        """(variant, fingerprint) of the code behind a node's path under these choices: a node
        inside a subgraph that is a variant belongs to that variant."""
        ...

    def unshared_reasons(self, varying: Sequence[str]) -> tuple[str, ...]:
        """Why no prefix may be shared with this graph; empty if prefixes may be shared."""
        ...

    def check_input(self, state: Mapping[str, Any]) -> None:
        """Raises `StateError` naming the key that is missing or cannot be checkpointed."""
        ...

    def check_edit(self, values: Mapping[str, Any]) -> None:
        """The same for a change of the state by hand, which may be of some keys only."""
        ...

    def check_output(self, node: str, output: Any) -> None:
        """Raises `StateError` for an output that a node of the graph would not return."""
        ...

    def difference(self, one: Any, other: Any, where: str) -> str | None:
        """Where two results differ, in words, types included; None if only message ids do."""
        ...

    async def advance(self, request: Advance, observer: StepObserver) -> Stop:
        """Runs until the end, a gate, an interrupt or a failure of a node.

        Raises only for faults that are not the workflow's.
        """
        ...

    def still_running(self, workspace: Workspace) -> tuple[str, ...]:
        """The nodes whose bodies go on in a workspace after `advance` has ended: sync ones, which
        nothing can stop."""
        ...

    def state(self, thread_id: str, checkpoint_id: CheckpointId) -> ExecutionState: ...

    def standing(self, thread_id: str, choices: Mapping[str, str]) -> Standing:
        """Where a thread stands at its newest checkpoint, under these choices."""
        ...
