"""By what a trace of a run is found again: the cell it belongs to."""

from __future__ import annotations

from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.interfaces.workflow_engine import TraceLabels

SHOWN_COMBINATIONS = 5


def trace_labels(execution: Execution, project: str) -> TraceLabels:
    """Name, tags and metadata of a run of a graph.

    A shared prefix belongs to many cells: the first few combinations are named, and how many more
    there are.
    """
    combinations = [str(name) for name in execution.metadata.get("combinations", ())]
    shown = combinations[:SHOWN_COMBINATIONS]
    rest = len(combinations) - len(shown)
    place = f"{execution.case_id}-{execution.repeat}"
    of_all = shown[0] if len(combinations) == 1 else f"{len(combinations)} combinations"
    return TraceLabels(
        name=f"{project} {place} {of_all}",
        tags=(
            "wtb",
            f"batch:{execution.batch_id}",
            f"case:{execution.case_id}",
            *(f"combination:{name}" for name in shown),
        ),
        metadata={
            "wtb_project": project,
            "wtb_batch_id": execution.batch_id,
            "wtb_case_id": execution.case_id,
            "wtb_repeat": execution.repeat,
            "wtb_execution_id": execution.execution_id,
            "wtb_combinations": [*shown, f"and {rest} more"] if rest else shown,
        },
    )
