"""The readable name of an execution's workspace."""

from __future__ import annotations

from pathlib import PurePosixPath

from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.workflow import ORIGINAL


def label_of(execution: Execution) -> str:
    """`<choices>/<case>-<repeat>`: always the same, so that a workspace is found again."""
    steps = ",".join(f"{node}={variant}" for node, variant in execution.path)
    if not execution.path and not execution.gated:
        chosen = sorted(execution.choices.items())
        steps = ",".join(f"{node}={variant}" for node, variant in chosen if variant != ORIGINAL)
    name = steps or ("shared" if execution.gated else "baseline")
    return str(PurePosixPath(name) / f"{execution.case_id}-{execution.repeat}")
