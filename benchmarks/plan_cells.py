"""Plans many cells in a process of its own, new and when all are done, and prints what it took.

python plan_cells.py FOLDER COMBINATIONS CASES -> seconds new, seconds done, peak MB, cells
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from benchmarks import workflows
from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.application.batch_test import register_request
from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.application.plan_batch import BatchPlan, BatchRequest
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.infrastructure.processes import is_alive


def main(folder: Path, combinations: int, cases: int) -> None:
    """A line of five nodes, with all variants at the last one."""
    project = WorkflowProject(
        "planned", workflows.trivial_line, db_path=folder / "p.db", output_dir=folder / "p"
    )
    for number in range(1, combinations):
        project.variant("n4", f"v{number}", workflows.trivial_node(f"n4v{number}"))
    request = BatchRequest(matrix={"n4": "*"}, cases=workflows.cases(cases))
    with TestBench(project) as bench:
        assert bench.session
        new, plan = timed(bench, request)
        assert plan.counts[CellState.NEW] == combinations * cases
        register_request(request, bench.session, is_alive, "inline")
        finish_all(bench, plan)
        done, plan = timed(bench, request)
        assert plan.counts[CellState.DONE] == combinations * cases
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(new, done, peak, len(plan.cells))


def timed(bench: TestBench, request: BatchRequest) -> tuple[float, BatchPlan]:
    """Seconds of a plan, and the plan."""
    began = time.perf_counter()
    plan = bench.plan(request.matrix, request.cases)
    return time.perf_counter() - began, plan


def finish_all(bench: TestBench, plan: BatchPlan) -> None:
    """Answers every cell in the ledger: running ten thousand would take minutes."""
    session = bench.session
    with session.open_uow(write=True) as uow:
        for planned in plan.cells:
            cell = planned.cell
            execution = Execution(
                execution_id=cell.cell_id,
                workflow_id=session.project.workflow_id,
                kind=ExecutionKind.CELL,
                status=ExecutionStatus.COMPLETED,
                choices={},
                created_at=session.clock.now(),
                batch_id=cell.batch_id,
                case_id=cell.case_id,
            )
            uow.executions.add(execution)
            uow.cells.resolve([cell.cell_id], cell.cell_id, ExecutionStatus.COMPLETED, None)
        uow.commit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
