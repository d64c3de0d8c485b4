"""LangGraph's recursion limit over a whole path, its shared prefix included."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph.errors import ErrorCode, GraphRecursionError, create_error_message

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

    def check(self, step: int) -> None:
        """Raises LangGraph's own error once a graph stands at the last step or beyond: not even
        an end is reached from there."""
        if step >= self.begun - BEFORE_INPUT + self.limit:
            raise GraphRecursionError(
                create_error_message(
                    message=f"Recursion limit of {self.limit} reached without hitting a stop "
                    "condition. You can increase the limit by setting the `recursion_limit` "
                    "config key.",
                    error_code=ErrorCode.GRAPH_RECURSION_LIMIT,
                )
            )

    def left(self, step: int) -> int:
        """What is left of the limit for a run that begins at a step."""
        return max(1, self.limit - (step - self.begun))
