"""A run that a node's exception ended, judged while the exception is at hand."""

from __future__ import annotations

from wtb_prefect.application.retry_policy import transience_of
from wtb_prefect.domain.interfaces.workflow_engine import Stop, StopKind
from wtb_prefect.infrastructure.checkpoints.recording_saver import failure_of


def failed_stop(error: Exception, declared: tuple[type[BaseException], ...]) -> Stop:
    """The stop of an exception; `declared` are the classes a project calls transient."""
    judged = transience_of(error, declared)
    return Stop(
        kind=StopKind.FAILED,
        error=failure_of(error, None),
        transient=judged.transient,
        retry_after=judged.retry_after,
    )
