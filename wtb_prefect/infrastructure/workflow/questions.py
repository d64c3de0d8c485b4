"""Answers to the questions (`interrupt()`) that a graph stopped at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from langgraph.types import Interrupt, StateSnapshot

from wtb_prefect.domain.interfaces.workflow_engine import AnswerSource, StepObserver
from wtb_prefect.infrastructure.workflow.recursion import BEFORE_INPUT


class Questions:
    """The questions of one run, each with the place it has among those of the execution.

    LangGraph's id of a question is that of its task: a node that asks twice asks under one id, and
    runs from its beginning for each answer. A question is therefore named by step, checkpoint, id
    and how often that id was answered here. The same name gets the same answer again, also in a
    process that goes on after a crash, where unfinished nodes ask from their first question on.
    """

    def __init__(
        self, source: AnswerSource | None, answered: Mapping[str, int], observer: StepObserver
    ) -> None:
        self._source = source
        self._answered = dict(answered)
        self._observer = observer
        self._asked: Counter[str] = Counter()

    def note(self, answers: Mapping[str, Any], step: int, head: str | None) -> None:
        """These answers to the questions open at the head are being given, in this order."""
        for question in answers:
            prefix = f"{step}/{head}/{question}"
            self._answered[f"{prefix}/{self._asked[prefix]}"] = len(self._answered)
            self._asked[prefix] += 1
        self._observer.answered(dict(self._answered))

    @property
    def are_ordered(self) -> bool:
        """Whether a question's answer depends on which questions were asked before it."""
        return self._source is None or self._source.is_ordered

    async def answers_to(self, snapshot: StateSnapshot) -> dict[str, Any]:
        """Interrupt id -> answer, for the open questions that have one, in the order of tasks.

        `snapshot` has the states of subgraphs in it.
        """
        found: dict[str, Any] = {}
        if self._source is None:
            return found
        step = (snapshot.metadata or {})["step"]
        head = f"{step}/{snapshot.config['configurable']['checkpoint_id']}"
        for question in open_questions(snapshot):
            prefix = f"{head}/{question.id}"
            name = f"{prefix}/{self._asked[prefix]}"
            index = self._answered.get(name, len(self._answered))
            answer = await self._source.answer(index, question.value)
            if answer is not None and question.id not in found:
                found[question.id] = answer[0]
                self._answered[name] = index
                self._asked[prefix] += 1
        if found:
            self._observer.answered(dict(self._answered))
        return found


def open_questions(snapshot: StateSnapshot) -> list[Interrupt]:
    """In the order of the tasks, also of those inside subgraphs.

    The task of a subgraph has them in the order in which they were asked, which differs from run
    to run where its nodes run side by side.
    """
    found: list[Interrupt] = []
    for task in snapshot.tasks:
        inside = open_questions(task.state) if isinstance(task.state, StateSnapshot) else []
        known = {question.id for question in inside}
        found += [*inside, *(other for other in task.interrupts if other.id not in known)]
    return found


def asking_tasks(snapshot: StateSnapshot) -> frozenset[str]:
    """The tasks that have a question open, at any depth."""
    found: set[str] = set()
    for task in snapshot.tasks:
        if task.interrupts:
            found.add(task.id)
        if isinstance(task.state, StateSnapshot):
            found |= asking_tasks(task.state)
    return frozenset(found)


def newest_answer(answered: Mapping[str, int]) -> int:
    """The step at which the newest answer was given; before the input if none was."""
    return max((int(name.partition("/")[0]) for name in answered), default=BEFORE_INPUT)
