"""What becomes of a batch whose cells fail or kill their workers."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from graphs import CALLS
from langgraph.graph import START, StateGraph

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.application.batch_test import run_batch_test
from wtb_prefect.application.plan_batch import BatchRequest
from wtb_prefect.application.run_batch import BatchRun
from wtb_prefect.application.run_chunk import run_chunk
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.domain.interfaces.segment_runner import Chunk, ChunkResult
from wtb_prefect.infrastructure.processes import is_alive, this_process
from wtb_prefect.terminal import plan_lines


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    case: str


BROKEN: set[tuple[str, str]] = set()
"""(node, case) of the bodies that raise."""


def body(name: str) -> Any:
    def work(state: State) -> dict[str, Any]:
        CALLS.add(name)
        (current_workspace() / f"{name}.txt").write_text(name)
        if (name, state["case"]) in BROKEN:
            raise ValueError("broken")
        return {"log": [name]}

    return work


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TestBench]:
    """first -> middle -> last; middle and last have a variant."""
    BROKEN.clear()
    CALLS.take()
    builder = StateGraph(State)
    for name in ("first", "middle", "last"):
        builder.add_node(name, body(name))
    builder.add_edge(START, "first")
    builder.add_edge("first", "middle")
    builder.add_edge("middle", "last")
    project = WorkflowProject("f", builder, db_path=tmp_path / "w.db", output_dir=tmp_path / "o")
    project.variant("middle", "v", body("middle-v"))
    project.variant("last", "v", body("last-v"))
    with TestBench(project) as bench:
        yield bench


MATRIX = {"middle": "*", "last": "*"}


def cases(*names: str) -> list[dict[str, Any]]:
    return [{"id": name, "state": {"log": [], "case": name}} for name in names]


def ends(result: Any) -> dict[tuple[str, str], str]:
    return {(cell.case_id, cell.combination): str(cell.status) for cell in result.cells}


class TestRetryFailed:
    """`retry_failed`."""

    @pytest.mark.parametrize("node", ["first", "middle-v", "last"])
    def test_only_the_failed_node_runs_again(self, bench: TestBench, node: str) -> None:
        """A failed trunk goes on once for all of its cells."""
        BROKEN.add((node, "1"))
        failed = bench.batch(MATRIX, cases("1", "2"), runner="inline")
        assert failed.status == "completed"
        assert "failed" in ends(failed).values()
        before = CALLS.take()
        BROKEN.clear()
        left_alone = bench.batch(MATRIX, cases("1", "2"), runner="inline")
        assert ends(left_alone) == ends(failed)
        assert CALLS.take() == {}
        again = bench.batch(MATRIX, cases("1", "2"), runner="inline", retry_failed=True)
        assert set(ends(again).values()) == {"completed"}
        after = CALLS.take()
        whole = {"first": 2, "middle": 2, "middle-v": 2, "last": 4, "last-v": 4}
        repeated = {"first": 1, "middle-v": 1, "last": 2}[node]
        whole[node] += repeated
        assert before + after == whole
        assert again.node_executions == sum(after.values())
        assert again.report.node_executions == sum(whole.values())
        for cell in again.cells:
            assert cell.execution_id is not None
            assert len(cell.state["log"]) == len(bench.files(cell.execution_id)) == 3

    def test_fails_again_and_is_planned(self, bench: TestBench) -> None:
        BROKEN.add(("last", "1"))
        bench.batch(MATRIX, cases("1"), runner="inline")
        CALLS.take()
        plan = bench.plan(MATRIX, cases("1"), retry_failed=True)
        assert [cell.is_wanted for cell in plan.cells].count(True) == 2
        assert "  failed cells go on from their last record" in plan_lines(plan)
        again = bench.batch(MATRIX, cases("1"), runner="inline", retry_failed=True)
        assert list(ends(again).values()).count("failed") == 2
        assert CALLS.take() == {"last": 2}


class TestFailFast:
    """`fail_fast`."""

    def test_nothing_new_is_started_and_the_same_request_goes_on(self, bench: TestBench) -> None:
        BROKEN.add(("middle", "2"))
        names = [str(number) for number in range(1, 9)]
        request: dict[str, Any] = {"matrix": MATRIX, "cases": cases(*names), "runner": "inline"}
        stopped = bench.batch(**request, max_parallel=1, fail_fast=True)
        assert stopped.status == "interrupted"
        found = ends(stopped)
        assert [found["2", name] for name in ("baseline", "last=v")] == ["failed", "failed"]
        assert {end for (case, _), end in found.items() if case == "1"} == {"completed"}
        assert {end for (case, _), end in found.items() if case in names[2:]} == {"pending"}
        assert sum(row.missing for row in stopped.table()) == 4 * 6 + 2
        on = bench.batch(**request, max_parallel=1, fail_fast=True)
        assert on.status == "completed"
        assert list(ends(on).values()).count("failed") == 2
        assert list(ends(on).values()).count("completed") == 30

    def test_the_last_cell_that_fails_leaves_a_complete_batch(self, bench: TestBench) -> None:
        BROKEN.add(("first", "1"))
        result = bench.batch(MATRIX, cases("1"), runner="inline", fail_fast=True)
        assert result.status == "completed"
        assert set(ends(result).values()) == {"failed"}


class MortalRunner:
    """Runs chunks as a worker does that one stretch kills; nothing of its answer is left."""

    slots = 2

    def __init__(self, scope: BatchScope, session: Session, killer: tuple[str, str]) -> None:
        self.scope, self.session, self.killer = scope, session, killer
        self.chunks: list[Chunk] = []
        self.waiting: list[Chunk] = []
        self.deaths = 0

    @property
    def in_flight(self) -> int:
        return len(self.waiting)

    def submit(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.waiting.append(chunk)

    async def next_result(self) -> ChunkResult:
        chunk = self.waiting.pop(0)
        killer = self.killer

        class Killed(BaseException):
            pass

        advance = type(self.session.engine).advance

        async def mortal(engine: Any, request: Any, observer: Any) -> Any:
            name = ",".join(f"{n}={v}" for n, v in request.choices.items() if v != "original")
            if request.tags["wtb_case_id"] == killer[0] and name == killer[1]:
                raise Killed
            return await advance(engine, request, observer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(self.session.engine), "advance", mortal)
            try:
                return await run_chunk(chunk, self.scope, self.session, 1)
            except (Killed, BaseExceptionGroup):
                self.deaths += 1
                return ChunkResult(lost=chunk.items, lost_reason="killed")


@pytest.mark.parametrize(
    ("killer", "cells", "bodies"),
    [
        ("last=v", {"last=v"}, 1),
        ("last=v,middle=v", {"last=v,middle=v"}, 1),
        ("middle=v", {"middle=v", "last=v,middle=v"}, 3),  # the stretch that both of them share
    ],
)
def test_one_killer_stretch_takes_no_neighbour_along(
    bench: TestBench, killer: str, cells: set[str], bodies: int
) -> None:
    """200 cells in chunks: all others complete after three deaths, and every body is counted."""
    names = [str(number) for number in range(50)]
    runners: list[MortalRunner] = []

    def make(scope: BatchScope) -> MortalRunner:
        runners.append(MortalRunner(scope, bench.session, ("7", killer)))
        return runners[0]

    run = BatchRun(owner=this_process(), runner_name="mortal", is_alive=is_alive)
    request = BatchRequest(matrix=MATRIX, cases=cases(*names))
    end = asyncio.run(run_batch_test(request, bench.session, make, run))
    result = bench.results()
    found = ends(result)
    crashed = {key for key, status in found.items() if status == "crashed"}
    assert crashed == {("7", name) for name in cells}
    assert list(found.values()).count("completed") == 200 - len(cells)
    assert runners[0].deaths == 3
    assert end.status == "failed"
    assert end.node_executions == 50 * 7 - bodies == sum(CALLS.take().values())


def test_options_travel_to_workers(bench: TestBench) -> None:
    """What a flow reads back from the ledger is what was asked for."""
    from wtb_prefect.application.batch_test import register_request
    from wtb_prefect.application.plan_batch import stored_request
    from wtb_prefect.application.run_batch import stored_scope
    from wtb_prefect.domain.batch_test import RunOptions

    asked = RunOptions(time_limit=2.5, retries=7, retry_failed=True, fail_fast=True)
    request = replace(BatchRequest(matrix=MATRIX, cases=cases("1")), options=asked)
    plan = register_request(request, bench.session, is_alive, "ray")
    assert stored_request(plan.batch_id, bench.session).options == asked
    assert stored_scope(plan.batch_id, bench.session).options == asked
