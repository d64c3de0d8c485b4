"""wtb-prefect: a workflow test bench for LangGraph that ships as a Prefect extension.

Exports are lazy: importing the package loads neither Prefect, Ray nor LangGraph.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wtb_prefect.domain.batch_test import Case as Case
    from wtb_prefect.domain.cell_filter import CellFilter as CellFilter
    from wtb_prefect.domain.mock_node import Recorded as Recorded
    from wtb_prefect.errors import WTBError as WTBError
    from wtb_prefect.infrastructure.workflow.body_context import (
        current_workspace as current_workspace,
    )
    from wtb_prefect.sdk.test_bench import TestBench as TestBench
    from wtb_prefect.sdk.workflow_project import WorkflowProject as WorkflowProject

__version__ = "0.1.0"

_EXPORTS = {
    "Case": "wtb_prefect.domain.batch_test",
    "CellFilter": "wtb_prefect.domain.cell_filter",
    "ExecutionStatus": "wtb_prefect.domain.execution",
    "Recorded": "wtb_prefect.domain.mock_node",
    "TestBench": "wtb_prefect.sdk.test_bench",
    "WTBError": "wtb_prefect.errors",
    "WorkflowProject": "wtb_prefect.sdk.workflow_project",
    "WtbCheckpointStore": "wtb_prefect.api.blocks",
    "WtbFileTracker": "wtb_prefect.api.blocks",
    "WtbWorkspace": "wtb_prefect.api.blocks",
    "batch_test": "wtb_prefect.api.flows",
    "collect_garbage": "wtb_prefect.api.garbage",
    "commit_files": "wtb_prefect.api.file_tasks",
    "current_workspace": "wtb_prefect.infrastructure.workflow.body_context",
    "fork_workspace": "wtb_prefect.api.file_tasks",
    "run_workflow": "wtb_prefect.api.run_workflow",
    "restore_files": "wtb_prefect.api.file_tasks",
    "settle_runs": "wtb_prefect.api.settle_runs",
    "verify_integrity": "wtb_prefect.api.verify_integrity",
    "verify_outbox": "wtb_prefect.api.verify_outbox",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
