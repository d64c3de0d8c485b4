"""LangGraph's recursion limit over a whole path, its shared prefix included."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.errors import ErrorCode, GraphRecursionError, create_error_message
from langgraph.managed.is_last_step import IsLastStepManager, RemainingStepsManager

BEFORE_INPUT = -2
"""The step of a thread that has no checkpoint yet."""


@dataclass(slots=True)
class StepBudget:
    """How many super-steps an execution may take, as LangGraph counts without forks.

    LangGraph counts from where a run begins, so a fork would get the whole budget again. `begun`
    is the step at which it would begin to count: before the input, or at the newest answer to a
    question, which begins a run of its own.
    """

    limit: int
    begun: int = BEFORE_INPUT

    @property
    def stop(self) -> int:
        """The step at which nothing runs any more."""
        return self.begun - BEFORE_INPUT + self.limit

    def check(self, step: int) -> None:
        """Raises LangGraph's own error once a graph stands at the last step or beyond: not even
        an end is reached from there."""
        if step >= self.stop:
            raise GraphRecursionError(
                create_error_message(
                    message=f"Recursion limit of {self.limit} reached without hitting a stop "
                    "condition. You can increase the limit by setting the `recursion_limit` "
                    "config key.",
                    error_code=ErrorCode.GRAPH_RECURSION_LIMIT,
                )
            )

    def check_inside(self, step: int) -> None:
        """The same for a visit of a subgraph, which has the whole limit from its own first step.

        After an answer LangGraph counts from where each graph stood then, and that is known of the
        top graph alone: its own count is left to decide.
        """
        if self.begun == BEFORE_INPUT:
            self.check(step)


step_budget: ContextVar[StepBudget | None] = ContextVar("wtb_step_budget", default=None)
"""Of the execution that runs here."""


class _StepsLeft(RemainingStepsManager):
    """How many steps are left to the top graph, its forks included."""

    @staticmethod
    def get(scratchpad: PregelScratchpad) -> int:
        return _stop(scratchpad, inside=False) - scratchpad.step


class _StepsLeftInside(RemainingStepsManager):
    """How many steps are left to a subgraph's visit, forks within it included."""

    @staticmethod
    def get(scratchpad: PregelScratchpad) -> int:
        return _stop(scratchpad, inside=True) - scratchpad.step


class _IsLast(IsLastStepManager):
    @staticmethod
    def get(scratchpad: PregelScratchpad) -> bool:
        return scratchpad.step == _stop(scratchpad, inside=False) - 1


class _IsLastInside(IsLastStepManager):
    @staticmethod
    def get(scratchpad: PregelScratchpad) -> bool:
        return scratchpad.step == _stop(scratchpad, inside=True) - 1


_COUNTING: dict[Any, tuple[type, type]] = {
    RemainingStepsManager: (_StepsLeft, _StepsLeftInside),
    IsLastStepManager: (_IsLast, _IsLastInside),
}


def counts_steps(managed: Mapping[str, Any]) -> str | None:
    """The first state key that tells nodes how many steps are left; None if there is none."""
    return next((key for key, kind in managed.items() if kind in _COUNTING), None)


def count_over_forks(managed: Mapping[str, Any], *, inside: bool) -> dict[str, Any]:
    """Managed values that count as if there were no forks. LangGraph's own ones count from where a
    run begins, and a fork is a run of its own."""
    kept = dict(managed)
    kept.update(
        {key: _COUNTING[kind][inside] for key, kind in managed.items() if kind in _COUNTING}
    )
    return kept


def _stop(scratchpad: PregelScratchpad, *, inside: bool) -> int:
    """As `check` and `check_inside` count."""
    budget = step_budget.get()
    if budget is None or (inside and budget.begun != BEFORE_INPUT):
        return scratchpad.stop
    return budget.stop
