"""Why what stopped at a gate cannot be forked there."""

from __future__ import annotations

from wtb_prefect.infrastructure.checkpoints.recording_saver import RecordingSaver, Watch
from wtb_prefect.infrastructure.workflow.body_context import BodyContext
from wtb_prefect.infrastructure.workflow.compile_graph import CompiledWorkflow
from wtb_prefect.infrastructure.workflow.probe import HeadOf, unlike_live
from wtb_prefect.infrastructure.workflow.recursion import BEFORE_INPUT

_HANDLED = (
    "an error handler ran in the super-step of the gate, and LangGraph would run it again in every "
    "fork"
)
_ORDERED = (
    "a question is open beside a node that varies: which answer of the list it gets, or whether it "
    "waits, depends on what that node asks"
)
_COUNTED = (
    "nodes of a subgraph count the steps left, and LangGraph counts these from the newest answer"
)


_COUNTED_BESIDE = (
    "a question was answered in the super-step of the gate, and nodes count the steps left: alone, "
    "the one at the gate would have counted before the answer"
)


def why_apart(
    context: BodyContext,
    compiled: CompiledWorkflow,
    watch: Watch,
    head_of: HeadOf,
    saver: RecordingSaver,
) -> str | None:
    """The first reason why a fork would not equal the live run, in words; None if it would.

    Raises `InfrastructureError` if a graph that was running has no checkpoint.
    """
    reason = context.not_shareable
    for hit in context.gate_hits:
        reason = reason or unlike_live(hit, compiled.levels, watch, head_of, saver)
    if watch.interrupted:
        reason = reason or _ORDERED
    if watch.handled_error:
        reason = reason or _HANDLED
    if watch.budget.begun != BEFORE_INPUT and any(
        compiled.counts_around(hit.namespace) for hit in context.gate_hits
    ):
        reason = reason or _COUNTED
    if watch.budget.begun == watch.steps[""] and compiled.levels[""].counts:
        reason = reason or _COUNTED_BESIDE
    return reason
