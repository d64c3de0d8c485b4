"""Scores: what an evaluator said of one execution, or why it could not say anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Goal = Literal["max", "min"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorSpec:
    """An evaluator as declared: a plain function whose arguments are bound by name."""

    name: str
    function: Callable[..., Any]
    goal: Goal = "max"
    primary: bool = False
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """One metric of one execution.

    Exactly one of `number` (booleans count as 0 or 1), `label` and `error` is set: an evaluator
    that raised is a failure with its traceback, never a score of 0.
    """

    execution_id: str
    evaluator: str
    metric: str
    number: float | None
    label: str | None
    goal: Goal
    primary: bool
    fingerprint: str
    created_at: datetime
    error: str | None = None
    traceback: str | None = None

    @property
    def value(self) -> float | str | None:
        """The score, or None where the evaluator failed."""
        return self.label if self.number is None else self.number
