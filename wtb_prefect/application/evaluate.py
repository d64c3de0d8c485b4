"""Scoring one execution: plain functions whose arguments are bound by name."""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wtb_prefect.domain.batch_test import Case
from wtb_prefect.domain.evaluation import EvaluationResult, EvaluatorSpec
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.identifiers import digest
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.errors import InvalidInputError

ARGUMENTS = ("state", "expected", "case", "execution", "boundaries", "workspace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What evaluators may ask for. `boundaries` and `workspace` are called only when one does.

    `around` an evaluator of a name is what it runs in, and `mask` hides secrets in its errors.
    """

    state: Mapping[str, Any]
    case: Case
    execution: Execution
    boundaries: Callable[[], Sequence[NodeBoundary]]
    workspace: Callable[[], Any]
    around: Callable[[str], AbstractContextManager[None]]
    mask: Callable[[str], str]

    def argument(self, name: str) -> Any:
        """The value bound to an argument name."""
        if name == "expected":
            return self.case.expected
        value = getattr(self, name)
        return value() if name in ("workspace", "boundaries") else value


def check_evaluator(spec: EvaluatorSpec) -> None:
    """Raises `InvalidInputError` if an evaluator asks for an argument that does not exist."""
    for name, parameter in inspect.signature(spec.function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        if name not in ARGUMENTS and required and parameter.kind is not parameter.VAR_KEYWORD:
            raise InvalidInputError(
                f"evaluator {spec.name!r} asks for {name!r}; "
                f"an evaluator may ask for: {', '.join(ARGUMENTS)}"
            )


def score_fingerprints(evaluators: Mapping[str, str], expected: str) -> dict[str, str]:
    """What the scores of a case depend on beside the execution, by evaluator: its code, and what
    the case expects."""
    return {name: digest("score", code, expected) for name, code in evaluators.items()}


async def evaluate(
    evaluators: Sequence[EvaluatorSpec],
    fingerprints: Mapping[str, str],
    evidence: Evidence,
    now: datetime,
) -> list[EvaluationResult]:
    """The results of all evaluators on one execution; one that raises is a failure, not a score."""
    if not evaluators:
        return []
    results: list[EvaluationResult] = []
    for spec in evaluators:
        with evidence.around(spec.name):
            metrics = await _call(spec, evidence)
        for metric, value in metrics.items():
            results.append(_result(spec, fingerprints[spec.name], evidence, now, metric, value))
    return results


@dataclass(frozen=True, slots=True)
class _Failure:
    error: str
    traceback: str


async def _call(spec: EvaluatorSpec, evidence: Evidence) -> dict[str, Any]:
    """metric -> bool, number, text or _Failure. A dict gives one metric per key."""
    try:
        wanted = inspect.signature(spec.function).parameters
        arguments = {name: evidence.argument(name) for name in wanted if name in ARGUMENTS}
        if inspect.iscoroutinefunction(spec.function):
            value = await spec.function(**arguments)
        else:
            # In a thread: an evaluator may block on a model or a file for seconds.
            value = await asyncio.to_thread(_called, spec.function, arguments)
        if inspect.isawaitable(value):  # an async callable object
            value = await value
        if isinstance(value, Mapping):
            return {f"{spec.name}.{key}": _score(part) for key, part in value.items()}
        return {spec.name: _score(value)}
    except Exception as exc:  # noqa: BLE001 - evaluators are user code; their failure is a result of its own
        text = "".join(traceback.format_exception(exc))
        error = evidence.mask(f"{type(exc).__name__}: {exc}")
        return {spec.name: _Failure(error, evidence.mask(text))}


def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return function(**arguments)
    except StopIteration as exc:  # a future cannot carry it: awaiting it would never end
        raise RuntimeError("the evaluator raised StopIteration") from exc


def _score(value: Any) -> bool | float | str:
    # numpy's scalars know how to become Python's.
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    raise TypeError(
        f"an evaluator returns a bool, a finite number, a text or a dict, not {value!r}"
    )


def _result(
    spec: EvaluatorSpec,
    fingerprint: str,
    evidence: Evidence,
    now: datetime,
    metric: str,
    value: Any,
) -> EvaluationResult:
    failure = value if isinstance(value, _Failure) else None
    is_label = isinstance(value, str)
    return EvaluationResult(
        execution_id=evidence.execution.execution_id,
        evaluator=spec.name,
        metric=metric,
        number=None if failure or is_label else float(value),
        label=value if is_label else None,
        goal=spec.goal,
        primary=spec.primary,
        fingerprint=fingerprint,
        created_at=now,
        error=failure.error if failure else None,
        traceback=failure.traceback if failure else None,
    )
