"""A time limit that bites: async nodes are cancelled, sync ones left behind."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.node_threads import NodeThreads, nodes_left_behind


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    hang: bool


RELEASE = threading.Event()


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """Whatever a test left hanging ends with it."""
    RELEASE.clear()
    yield
    RELEASE.set()
    assert nodes_left_behind(grace=5.0) == ()


def first(state: State) -> dict[str, Any]:
    time.sleep(0.2)
    return {"log": ["first"]}


def last(state: State) -> dict[str, Any]:
    return {"log": ["last"]}


def hangs(state: State) -> dict[str, Any]:
    if state["hang"]:
        RELEASE.wait(60)
    return {"log": ["last"]}


async def ahangs(state: State) -> dict[str, Any]:
    await asyncio.sleep(60)
    return {"log": ["last"]}


def make(tmp_path: Path, variant: Callable[..., Any]) -> TestBench:
    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("last", last)
    builder.add_edge(START, "first")
    builder.add_edge("first", "last")
    project = WorkflowProject("t", builder, db_path=tmp_path / "w.db", output_dir=tmp_path / "o")
    project.variant("last", "v", variant)
    return TestBench(project)


CASES = [{"id": str(n), "state": {"log": [], "hang": n == 0}} for n in range(3)]
MATRIX = {"last": ["original", "v"]}


@pytest.mark.parametrize("variant", [hangs, ahangs])
def test_the_cell_fails_and_names_the_node(
    tmp_path: Path, variant: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with make(tmp_path, variant) as bench:
        began = time.monotonic()
        result = bench.batch(MATRIX, CASES, runner="inline", time_limit=1.0)
        assert time.monotonic() - began < 10
        hung = variant is hangs
        ends = {(cell.case_id, cell.combination): cell for cell in result.cells}
        cell = ends["0", "last=v"]
        assert cell.status == "failed"
        assert cell.error is not None
        assert (cell.error.node, cell.error.type) == ("last", "TimeLimitExceeded")
        where = ", in a thread that cannot be stopped" if hung else ""
        assert cell.error.message == (
            f"the cell's time limit of 1 s was over, node 'last' running{where}"
        )
        assert 0.9 < cell.duration < 3
        failed = [key for key, other in ends.items() if other.status == "failed"]
        assert failed == ([("0", "last=v")] if hung else [(str(n), "last=v") for n in range(3)])
        assert cell.execution_id is not None
        assert bench.implementations(cell.execution_id).keys() == {"first", "last"}
        said = capfd.readouterr().err
        assert ("wtb: node 'last' still runs in a thread" in said) == hung


def test_the_limit_counts_the_shared_prefix(tmp_path: Path) -> None:
    """`first` takes 0.2 s of the limit once for all; with less its cells never begin `last`."""
    with make(tmp_path, last) as bench:
        result = bench.batch(MATRIX, CASES[:1], runner="inline", time_limit=0.1)
        assert {cell.status for cell in result.cells} == {"failed"}
        error = result.cells[0].error
        assert error is not None
        assert error.node == "first"
        again = bench.batch(MATRIX, CASES[:1], runner="inline", batch_id="b", time_limit=30)
        assert {cell.status for cell in again.cells} == {"completed"}


def test_what_the_prefix_took_is_gone(tmp_path: Path) -> None:
    """`first` leaves 0.8 s of the second to a `last` that takes 0.9 s."""

    async def lasts(state: State) -> dict[str, Any]:
        await asyncio.sleep(0.9)
        return {"log": ["last"]}

    with make(tmp_path, lasts) as bench:
        result = bench.batch(MATRIX, CASES[:1], runner="inline", time_limit=1.0)
        ends = {cell.combination: cell for cell in result.cells}
        assert ends["last=v"].status == "failed"
        assert ends["last=v"].error is not None
        assert ends["last=v"].error.node == "last"


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "1", True])
def test_a_limit_is_more_than_nothing(tmp_path: Path, limit: Any) -> None:
    with make(tmp_path, last) as bench, pytest.raises(InvalidInputError, match="time_limit"):
        bench.batch(MATRIX, CASES, runner="inline", time_limit=limit)


def test_options_have_names(tmp_path: Path) -> None:
    with make(tmp_path, last) as bench, pytest.raises(InvalidInputError, match="no option 'limit'"):
        bench.batch(MATRIX, CASES, runner="inline", limit=3)  # type: ignore[call-arg]


HANGING = """
import sys, threading, time
sys.path.insert(0, {here!r})
from wtb_prefect.cli import entry
sys.argv = ["wtb", "run", "hanging.py:project", "--cases", "cases.jsonl", "--runner", "inline",
            "--time-limit", "1"]
entry()
"""
PROJECT = """
import time
from typing import TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import WorkflowProject

class State(TypedDict):
    x: int

def hang(state: State):
    time.sleep(300)

builder = StateGraph(State)
builder.add_node("hang", hang)
builder.add_edge(START, "hang")
project = WorkflowProject("hanging", builder, db_path="w.db", output_dir="o")
"""


def test_the_process_ends_although_a_node_hangs(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(PROJECT)
    (tmp_path / "cases.jsonl").write_text('{"id": "1", "state": {"x": 1}}\n')
    here = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", HANGING.format(here=here)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "TimeLimitExceeded" in ended.stdout
    assert ended.stderr.count("still runs in a thread") == 1


class TestNodeThreads:
    """The pool itself."""

    def test_runs_as_many_at_once_as_it_may_and_uses_threads_again(self) -> None:
        pool = NodeThreads(3)
        seen: set[int] = set()
        together = threading.Barrier(3, timeout=10)

        def work() -> None:
            seen.add(threading.get_ident())
            together.wait()

        for _ in range(2):
            for future in [pool.submit(work) for _ in range(3)]:
                future.result(10)
        assert len(seen) == 3
        pool.shutdown()

    def test_what_hangs_is_left_behind_and_replaced(self) -> None:
        pool = NodeThreads(1)
        future = pool.submit(RELEASE.wait, 60)
        while not future.running():
            time.sleep(0.01)
        assert not future.cancel()
        assert pool.submit(lambda: "next").result(10) == "next"
        began = time.monotonic()
        pool.shutdown(wait=True)
        assert time.monotonic() - began < 5
        RELEASE.set()
        assert future.result(10) is True

    def test_errors_come_back_and_the_end_cancels_what_waits(self) -> None:
        pool = NodeThreads(1)
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 // 0).result(10)
        first, second = pool.submit(time.sleep, 0.3), pool.submit(time.sleep, 0)
        pool.shutdown(wait=True, cancel_futures=True)
        assert first.done()
        assert second.cancelled()
        with pytest.raises(RuntimeError, match="ended"):
            pool.submit(time.sleep, 0)
