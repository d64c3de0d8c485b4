"""What the code inside a node may ask of the bench: its workspace."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wtb_prefect.domain.interfaces.workflow_engine import StepObserver
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.mock_node import Mocks
from wtb_prefect.errors import InfrastructureError, WTBError
from wtb_prefect.infrastructure.logs.cell_logs import CellLog

if TYPE_CHECKING:
    from wtb_prefect.infrastructure.workflow.holding import Holder


@dataclass(frozen=True, slots=True)
class GateHit:
    """A gate that was reached: its node's path, its graph's namespace and live values.

    `around` are the namespaces of the graphs around it, the top one first and its own last. They
    cannot be read from its own: that of a subgraph with a memory names no tasks.
    """

    path: str
    namespace: str
    live: Mapping[str, Any]
    around: tuple[str, ...] = ("",)


@dataclass(slots=True)
class BodyContext:
    """The run a node body belongs to.

    `log` takes what its code prints and logs; `label` names code that is no node (an evaluator).
    `at_end` is closed when the run ends, in whatever way.

    `mocks` are the nodes that are answered for, `kept` those whose outputs are recorded, `visited`
    the super-steps in which recorded nodes were answered for. `not_shareable` is why what stopped
    the run cannot be forked, if it is known before the checkpoint is looked at, and `fault` what
    stopped it that is not the workflow's. `holder` stops it where somebody asked for that.
    """

    workspace: Workspace
    observer: StepObserver | None = None
    gate_hits: list[GateHit] = field(default_factory=list)
    log: CellLog | None = None
    label: str | None = None
    at_end: ExitStack = field(default_factory=ExitStack)
    mocks: Mocks = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    visited: dict[str, set[int]] = field(default_factory=dict)
    not_shareable: str | None = None
    fault: InfrastructureError | None = None
    holder: Holder | None = None


body_context: ContextVar[BodyContext] = ContextVar("wtb_body_context")
"""Set around each run; LangGraph copies the context into its tasks and threads."""


def current_workspace() -> Path:
    """The own directory of the execution that calls this, from inside a node or an evaluator.

    The directory begins with the files of the base workspace, or of the execution it was forked
    from. What a node writes there is committed with the next checkpoint.

    Raises:
        WTBError: outside of an execution run by the bench.
    """
    context = body_context.get(None)
    if context is None:
        raise WTBError("current_workspace() was called outside of an execution run by the bench")
    return context.workspace.path()
