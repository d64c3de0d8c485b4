"""Running a graph on one thread, stopping where combinations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from wtb_prefect.domain.execution import ExecutionState, NodeFailure
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.workflow import TestWorkflow


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStart:
    """A node of the super-step that begins; `replayed` when its writes are pending already."""

    task_id: str
    node: str
    replayed: bool = False


class StepObserver(Protocol):
    """Told of everything LangGraph records, in the order that keeps the stores consistent.

    Calls come from one event loop, one at a time.
    """

    def task_started(self, task: TaskStart) -> None:
        """One task of the super-step; all of them are named before any of them runs."""
        ...

    async def task_finished(self, task_id: str, usage: tuple[int, int]) -> bool:
        """A task's writes exist but are not saved. `usage` = (input, output) tokens.

        Returns whether they have to be saved as pending writes: not when the task is alone in its
        step, because the checkpoint follows at once and makes them redundant.
        """
        ...

    def task_saved(self, task_id: str) -> None:
        """The task's pending writes are in the checkpoint store."""
        ...

    def task_failed(self, task_id: str, error: NodeFailure) -> None: ...

    def body_called(self, task_id: str) -> None:
        """A node's implementation is being called for a task (from whatever thread runs it)."""
        ...

    async def checkpoint_coming(self) -> None:
        """A checkpoint is about to be saved: the files have to be durable first."""
        ...

    def checkpoint_saved(
        self, checkpoint_id: CheckpointId, parent_id: CheckpointId | None, step: int
    ) -> None: ...


class StopKind(StrEnum):
    """Why the engine handed control back."""

    COMPLETED = "completed"
    GATE = "gate"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Where an execution stands now.

    `gates` are the gated nodes about to run (in the order the engine met them); `not_shareable`
    says why a copy of the checkpoint would not equal the live run, if so.
    """

    kind: StopKind
    gates: tuple[str, ...] = ()
    next_nodes: tuple[str, ...] = ()
    not_shareable: str | None = None
    error: NodeFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What to run: a thread, from `input` (a fresh start) or from its head (`input` None)."""

    thread_id: str
    choices: Mapping[str, str]
    gated: frozenset[str]
    input: Mapping[str, Any] | None
    step: int
    workspace: Workspace
    tags: Mapping[str, str]


class WorkflowEngine(Protocol):
    """A graph with its variants, able to run any choice of them."""

    def describe(self) -> TestWorkflow: ...

    def variant_fingerprint(self, node: str, variant: str) -> str: ...

    def unshared_reasons(self, varying: Sequence[str]) -> tuple[str, ...]:
        """Why no prefix may be shared with this graph; empty if prefixes may be shared."""
        ...

    def check_input(self, state: Mapping[str, Any]) -> None:
        """Raises `StateError` naming the key that is missing or cannot be checkpointed."""
        ...

    async def advance(self, request: Advance, observer: StepObserver) -> Stop:
        """Runs until the end, a gate, an interrupt or a failure of a node.

        Raises only for faults that are not the workflow's.
        """
        ...

    def state(self, thread_id: str, checkpoint_id: CheckpointId) -> ExecutionState: ...
