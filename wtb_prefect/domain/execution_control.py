"""Controlling a single execution: who runs it, what was asked of it, which moves are legal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from wtb_prefect.domain.batch_test import Owner
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.errors import IllegalMoveError


class ControlRequest(StrEnum):
    """What a live execution was asked to do before its next super-step."""

    PAUSE = "pause"
    STOP = "stop"


class Move(StrEnum):
    """What can be done to an execution from outside."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    ROLLBACK = "roll back"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionControl:
    """Beside an execution of kind `run`: what it needs to go on in another process.

    `owner` is the process that runs it now. `asked` is what that process finds between two
    super-steps. `breakpoints` are the nodes it stops before; `graph` the import path of a graph
    that is not the project's own; `encoding` and `payload` hold the initial state.
    """

    execution_id: str
    owner: Owner | None
    asked: ControlRequest | None
    breakpoints: tuple[str, ...]
    graph: str | None
    encoding: str
    payload: bytes


_S = ExecutionStatus
_LEGAL: dict[Move, tuple[ExecutionStatus, ...]] = {
    Move.PAUSE: (_S.RUNNING,),
    Move.RESUME: (_S.PENDING, _S.RUNNING, _S.PAUSED, _S.FAILED, _S.CRASHED),
    Move.STOP: (_S.PENDING, _S.RUNNING, _S.PAUSED, _S.FAILED, _S.CRASHED),
    Move.ROLLBACK: (_S.RUNNING, _S.PAUSED, _S.COMPLETED, _S.FAILED, _S.CRASHED),
}
_INSTEAD: dict[Move, str] = {
    Move.PAUSE: "only a running one can be paused",
    Move.RESUME: "branch from one of its checkpoints",
    Move.STOP: "nothing is left to stop",
    Move.ROLLBACK: "branch from one of its checkpoints instead",
}


def check_move(move: Move, execution: Execution, *, is_live: bool) -> None:
    """Raises `IllegalMoveError` if an execution cannot be moved like that as it stands.

    `is_live`: a process runs it now. One that is `running` without is what a crash has left.
    """
    name = f"execution {execution.execution_id}"
    if execution.kind is not ExecutionKind.RUN:
        raise IllegalMoveError(
            f"cannot {move} {name}: it belongs to batch {execution.batch_id}, whose results would "
            "change; branch from one of its checkpoints instead"
        )
    if execution.status not in _LEGAL[move]:
        instead = _INSTEAD[move]
        if move is Move.RESUME and execution.status is ExecutionStatus.COMPLETED:
            instead = f"roll it back first, or {instead}"
        raise IllegalMoveError(f"cannot {move} {name}: it is {execution.status}; {instead}")
    if is_live and move in (Move.RESUME, Move.ROLLBACK):
        raise IllegalMoveError(
            f"cannot {move} {name}: another process is running it; pause or stop it first"
        )
    if move is Move.PAUSE and not is_live:
        raise IllegalMoveError(
            f"cannot {move} {name}: the process that ran it is gone; resume goes on from its last "
            "record"
        )
