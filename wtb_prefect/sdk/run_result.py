"""One controlled execution as its caller sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wtb_prefect.domain.execution import ExecutionStatus, NodeFailure
from wtb_prefect.domain.interfaces.workflow_engine import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How an execution stands.

    `next` are the nodes that would run next (empty at an end), `questions` what it waits for an
    answer to, `error` why it failed. `node_executions` counts the node bodies it ran itself;
    `parent_id` is the execution that it was branched from.
    """

    execution_id: str
    status: ExecutionStatus
    state: Mapping[str, Any]
    next: tuple[str, ...]
    error: NodeFailure | None
    questions: tuple[Question, ...]
    node_executions: int
    parent_id: str | None
