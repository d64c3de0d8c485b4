"""Many stretches in one loop, several calls on one bench: nobody waits for what is not theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.application.read_history import read_boundaries
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.errors import BatchBusyError, LedgerError


class State(TypedDict, total=False):
    """A number to tell cases apart, and what nodes wrote."""

    q: int
    a: int
    b: int


def cases(count: int) -> list[dict[str, Any]]:
    return [{"id": f"c{number}", "state": {"q": number}} for number in range(count)]


async def b(state: State) -> dict[str, int]:
    await asyncio.sleep(0.02)
    return {"b": 1}


def graph(node_a: Any, router: Any = None, timeout: float | None = None) -> Any:
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    builder.add_node("node_a", node_a, timeout=timeout)
    builder.add_node("node_b", b)
    builder.add_edge(START, "node_a")
    if router is None:
        builder.add_edge("node_a", "node_b")
    else:
        builder.add_conditional_edges("node_a", router, ["node_b"])
    builder.add_edge("node_b", END)
    return builder


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Any]:
    opened: list[TestBench] = []

    def open_bench(builder: Any) -> TestBench:
        project = WorkflowProject(
            "p", builder, db_path=tmp_path / "w.db", output_dir=tmp_path / "out"
        )
        opened.append(TestBench(project))
        return opened[-1]

    yield open_bench
    for bench in opened:
        bench.close()


@pytest.mark.timeout(60)
def test_a_body_that_outlives_its_time_limit_holds_up_nobody(benches: Any) -> None:
    """LangGraph gives up on it without waiting; when it does return, the run is over."""

    async def node_a(state: State) -> dict[str, int]:
        if state["q"] == 0:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                await asyncio.sleep(0.2)
        return {"a": 1}

    result = benches(graph(node_a, timeout=0.1)).batch(
        cases=cases(12), max_parallel=2, runner="inline"
    )
    assert [cell.status for cell in result.cells] == ["failed"] + ["completed"] * 11


@pytest.mark.timeout(60)
def test_routers_that_wait_run_side_by_side(benches: Any) -> None:
    """Neither in turn after each other, nor counted against the time limit of their node."""

    async def node_a(state: State) -> dict[str, int]:
        return {"a": 1}

    async def router(state: State) -> str:
        await asyncio.sleep(0.3)
        return "node_b"

    bench = benches(graph(node_a, router, timeout=1.0))
    began = time.perf_counter()
    result = bench.batch(cases=cases(8), max_parallel=8, runner="inline")
    assert {cell.status for cell in result.cells} == {"completed"}
    assert time.perf_counter() - began < 8 * 0.3
    durations = [
        boundary.duration
        for cell in result.cells
        for boundary in read_boundaries(bench.session.open_uow, cell.execution_id)
        if boundary.node == "node_a"
    ]
    assert max(durations) < 1.0


@pytest.mark.timeout(60)
def test_batches_of_one_bench_run_at_once_but_not_the_same_one(benches: Any) -> None:
    """Each call has a loop of its own; a second call of a running batch is refused."""

    async def node_a(state: State) -> dict[str, int]:
        await asyncio.sleep(0.02)
        return {"a": 1}

    bench = benches(graph(node_a))
    bench.session.engine.describe()

    async def main() -> list[Any]:
        names = ("x", "y", "z", "z")
        calls = (bench.abatch(cases=cases(20), runner="inline", batch_id=name) for name in names)
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(main())
    refused = [found for found in results if isinstance(found, BatchBusyError)]
    done = [found for found in results if not isinstance(found, Exception)]
    assert len(refused) == 1
    assert "'z'" in repr(refused[0]) or "batch z" in str(refused[0])
    assert [found.node_executions for found in done] == [40, 40, 40]


def test_a_ledger_busy_at_the_wrong_moment_loses_nothing(
    benches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The early look at a lasting stretch may fail; its rows come with the next record."""

    async def node_a(state: State) -> dict[str, int]:
        await asyncio.sleep(0.8)
        return {"a": 1}

    failed: list[UnitOfWork] = []
    show = StepRecorder.show

    def show_and_fail(recorder: StepRecorder) -> None:
        real = recorder.open_uow

        def refusing(*, write: bool = False) -> UnitOfWork:
            uow = real(write=write)

            def refuse() -> None:
                failed.append(uow)
                raise LedgerError("database is locked")

            monkeypatch.setattr(uow, "commit", refuse, raising=False)
            return uow

        recorder.open_uow = refusing
        try:
            show(recorder)
        finally:
            recorder.open_uow = real

    monkeypatch.setattr(StepRecorder, "show", show_and_fail)
    result = benches(graph(node_a)).batch(cases=cases(1), runner="inline")
    assert failed
    assert result.cells[0].status == "completed"
    assert result.cells[0].result.node_executions == result.node_executions == 2
