"""A case's answers to `interrupt()`: a list in the order of the questions, or a function."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from wtb_prefect.application.references import reference_to
from wtb_prefect.domain.batch_test import Case
from wtb_prefect.errors import InvalidInputError

Answers = Sequence[Any] | Callable[..., Any]


class CaseAnswers:
    """See `AnswerSource`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    @property
    def is_ordered(self) -> bool:
        """A list is."""
        return not callable(self._answers)

    async def answer(self, index: int, question: Any) -> tuple[Any] | None:
        """The `index`-th of a list, or what the function makes of the question.

        Sync functions are called in a thread: they may ask a model, or a person.
        """
        if not callable(self._answers):
            return (self._answers[index],) if index < len(self._answers) else None
        if inspect.iscoroutinefunction(self._answers):
            return (await self._answers(question),)
        return (await asyncio.to_thread(self._answers, question),)


def check_importable(cases: Sequence[Case], runner: str) -> None:
    """Raises `InvalidInputError` for answers that are a function other processes cannot find."""
    for case in cases:
        if callable(case.answers) and reference_to(case.answers) is None:
            name = getattr(case.answers, "__qualname__", repr(case.answers))
            raise InvalidInputError(
                f"case {case.id!r}: runner {runner!r} imports the function {name} that answers "
                "questions in other processes, and it is not at the top level of a module: move "
                "it there, give a list, or use runner='inline'"
            )
