"""The readable name of an execution's workspace."""

from __future__ import annotations

from pathlib import PurePosixPath

from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.workflow import ORIGINAL


def label_of(execution: Execution) -> str:
    """`<choices>/<case>-<repeat>`, of a single run `<choices>/run`: always the same, so that a
    workspace is found again."""
    steps = ",".join(f"{node}={variant}" for node, variant in execution.path)
    if not execution.path and not execution.gated:
        chosen = sorted(execution.choices.items())
        steps = ",".join(f"{node}={variant}" for node, variant in chosen if variant != ORIGINAL)
    name = steps or ("shared" if execution.gated else "baseline")
    case = execution.case_id
    return str(PurePosixPath(name) / ("run" if case is None else f"{case}-{execution.repeat}"))
