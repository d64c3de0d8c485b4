"""Going on with an execution from where the ledger says it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wtb_prefect.application.begin_segment import begin_retry
from wtb_prefect.application.drive_execution import (
    ACTOR,
    Controller,
    Drive,
    claim,
    controlled,
    drive,
)
from wtb_prefect.application.put_thread_back import put_thread_back
from wtb_prefect.application.session import Session
from wtb_prefect.application.start_execution import checked_breakpoints
from wtb_prefect.domain.events import ExecutionResumed
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.execution_control import Move, check_move
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.interfaces.workflow_engine import Question, Standing
from wtb_prefect.errors import InvalidInputError


async def resume_execution(
    execution_id: str,
    session: Session,
    by: Controller,
    *,
    edit: Mapping[str, Any] | None = None,
    value: Any = None,
    stepping: bool = False,
    breakpoints: Sequence[str] | None = None,
) -> Execution:
    """Runs a paused, failed or crashed execution on; one super-step only if `stepping`.

    `edit` is applied to the state first, through its reducers. `value` answers the open question;
    if there are several, it maps their ids to the answers.

    Raises:
        NotFoundError, IllegalMoveError, InvalidInputError: it was left as it was.
    """
    stops = None if breakpoints is None else checked_breakpoints(breakpoints, session)
    with session.open_uow() as uow:
        known, control = controlled(uow, execution_id)
        check_move(Move.RESUME, known, is_live=by.runs(control))
    if edit is not None:
        session.engine.check_edit(edit)
    standing = standing_of(known, session)
    answers = _answers(value, standing.questions, edit)
    with session.open_uow(write=True) as uow:
        going_on, control = claim(uow, execution_id, stops, by)
        resumed = ExecutionResumed(
            at=session.clock.now(),
            **ExecutionResumed.fields_of(known),
            edited=tuple(sorted(edit or {})),
            answered=len(answers),
            stepping=stepping,
        )
        uow.record(resumed, ACTOR)
        uow.commit()
    how = Drive(stepping=stepping, edit=edit, answers=answers)
    if going_on.head is not None:
        put_thread_back(going_on, session)
    begin = begin_retry(going_on, session, standing.asking if answers else frozenset())
    return await drive(begin, control, how, session)


def standing_of(execution: Execution, session: Session) -> Standing:
    """What a paused execution would run next, and what it waits for an answer to.

    One that a crash or Ctrl-C has cut off has no question open: its nodes ask again.
    """
    if execution.status is not ExecutionStatus.PAUSED or not execution.next_nodes:
        return Standing(next_nodes=execution.next_nodes)
    return session.engine.standing(thread_id(execution.execution_id), execution.choices)


def _answers(
    value: Any, questions: Sequence[Question], edit: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Question id -> answer."""
    asked = {question.id: question for question in questions}
    words = "; ".join(f"{q.id}: {q.value!r}" for q in questions)
    if value is None:
        if asked and edit is None:
            raise InvalidInputError(f"it waits for an answer, give value=...: {words}")
        return {}
    if not asked:
        raise InvalidInputError("no question is open, so there is nothing that value answers")
    if edit is not None:
        raise InvalidInputError(
            "the state cannot be changed while a question is answered: the node asks again then; "
            "resume with update=... first, then with value=..."
        )
    if isinstance(value, Mapping) and value and set(value) <= set(asked):
        return dict(value)
    if len(asked) > 1:
        raise InvalidInputError(
            f"{len(asked)} questions are open; give value={{id: answer}}: {words}"
        )
    return dict.fromkeys(asked, value)
