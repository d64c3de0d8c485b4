"""Some cells of a batch: the same batch, the others missing until somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from graphs import Body, make_body
from line_project import CASES, MATRIX, project, run

from wtb_prefect import CellFilter, TestBench
from wtb_prefect.application.batch_test import register_request
from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.application.plan_batch import BatchRequest, stored_request
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.errors import NotFoundError
from wtb_prefect.infrastructure.processes import is_alive


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TestBench]:
    with TestBench(project(tmp_path)) as made:
        yield made


def test_the_first_cases_now_and_the_others_later(bench: TestBench) -> None:
    """1 + 2 + 4 bodies a case; the whole request is the same batch and runs the rest alone."""
    some = run(bench, only=CellFilter(limit=1))
    assert some.node_executions == 7
    assert (some.status, len(some.cells), len(some.asked)) == ("partial", 12, 4)
    assert {cell.case_id for cell in some.asked} == {"c1"}
    assert all(cell.status == "completed" for cell in some.asked)
    assert [(row.completed, row.missing, row.failed) for row in some.table()] == [(1, 2, 0)] * 4
    every = run(bench)
    assert every.batch_id == some.batch_id
    assert (every.node_executions, every.status) == (14, "completed")
    assert len(every.asked) == 12


def test_one_combination_runs_its_path_and_the_others_their_rest(bench: TestBench) -> None:
    """The tree is the whole request's: what one combination ran is not run again."""
    assert run(bench, only=CellFilter(combinations=("b=x",))).node_executions == 9
    assert run(bench).node_executions == 21 - 9


def test_the_plan_counts_what_is_left_out(bench: TestBench) -> None:
    plan = bench.plan(MATRIX, CASES, only=CellFilter(tags=("odd",), combinations=("c=*",)))
    assert plan.counts[CellState.LEFT_OUT] == 10
    assert plan.counts[CellState.NEW] == 2
    assert sum(cell.is_wanted for cell in plan.cells) == 2
    assert bench.plan(MATRIX, CASES).batch_id == plan.batch_id
    with pytest.raises(NotFoundError, match="no combination 'd=x'"):
        bench.plan(MATRIX, CASES, only=CellFilter(combinations=("d=x",)))


def test_what_is_left_out_keeps_its_answer(tmp_path: Path) -> None:
    """A stale cell that nobody asks for stays done as it was, and stale for whoever asks."""
    with TestBench(project(tmp_path)) as bench:
        run(bench)
    with TestBench(project(tmp_path, {"c": make_body(Body("c", "new"))})) as edited:
        some = run(edited, only=CellFilter(cases=("c2",)))
        assert some.node_executions == 2
        assert {cell.status for cell in some.cells} == {ExecutionStatus.COMPLETED}
        assert some.status == "completed"
        plan = edited.plan(MATRIX, CASES)
        assert (plan.counts[CellState.DONE], plan.counts[CellState.STALE]) == (8, 4)
        old = next(c for c in some.cells if (c.case_id, c.combination) == ("c1", "c=x"))
        assert old.state["log"][-1] == "c:x:3"


def test_a_failure_that_nobody_asked_for_is_not_this_runs(tmp_path: Path) -> None:
    with TestBench(project(tmp_path, {"b": make_body(Body("b", "x", raises=True))})) as bench:
        run(bench, only=CellFilter(cases=("c1",)))
        some = run(bench, only=CellFilter(cases=("c2",), combinations=("baseline",)))
        assert {cell.status for cell in some.asked} == {ExecutionStatus.COMPLETED}
        assert [cell.status for cell in some.cells].count(ExecutionStatus.FAILED) == 2


def test_the_filter_travels_with_the_stored_request(bench: TestBench) -> None:
    """A flow is given the batch's id alone."""
    only = CellFilter(cases=("c3",))
    request = BatchRequest(matrix=MATRIX, cases=CASES, only=only)
    batch_id = register_request(request, bench.session, is_alive, "threads").batch_id
    assert stored_request(batch_id, bench.session).only == only
    whole = BatchRequest(matrix=MATRIX, cases=CASES)
    assert register_request(whole, bench.session, is_alive, "threads").batch_id == batch_id
    assert not stored_request(batch_id, bench.session).only
