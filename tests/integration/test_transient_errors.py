"""Nodes that fail for a while: a shared stretch goes on from its record before its cells fail."""

from __future__ import annotations

import asyncio
import json
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from graphs import CALLS
from langgraph.graph import START, StateGraph

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.application.batch_test import run_batch_test
from wtb_prefect.application.plan_batch import BatchRequest
from wtb_prefect.application.retry_policy import Backoff
from wtb_prefect.application.run_batch import BatchRun
from wtb_prefect.commands.documents import report_document
from wtb_prefect.infrastructure.inline_runner import InlineRunner
from wtb_prefect.infrastructure.processes import is_alive, this_process
from wtb_prefect.terminal import bodies_line, cell_line

CASES = [{"id": name, "state": {"log": []}} for name in ("1", "2")]
MATRIX = {"last": ["original", "v"]}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


class Hiccup(Exception):
    """An error only the project knows to be transient."""


class Trouble:
    """Bodies that fail as often as they were told to, having written files first."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.error: Callable[[], Exception] = lambda: TimeoutError("the model is busy")

    def body(self, name: str, seconds: float = 0.0) -> Callable[[State], dict[str, Any]]:
        def work(state: State) -> dict[str, Any]:
            CALLS.add(name)
            time.sleep(seconds)
            folder = current_workspace()
            with (folder / f"{name}.txt").open("a") as file:
                file.write(f"{name} {len(state['log'])}\n")
            if self.left.get(name, 0) > 0:
                self.left[name] -= 1
                (folder / f"{name}.half").write_text("half of what it should be")
                raise self.error()
            assert not list(folder.glob("*.half"))
            return {"log": [name]}

        return work


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    CALLS.take()
    yield Trouble()
    CALLS.take()


@pytest.fixture
def bench(tmp_path: Path, trouble: Trouble) -> Iterator[TestBench]:
    """first -> (left | right) -> last, where last has a variant; waits are noted, not waited."""

    def build() -> StateGraph[Any, Any, Any, Any]:
        builder = StateGraph(State)
        builder.add_node("first", trouble.body("first"))
        builder.add_node("left", trouble.body("left"))
        builder.add_node("right", trouble.body("right", 0.2))
        builder.add_node("last", trouble.body("last"))
        builder.add_edge(START, "first")
        builder.add_edge("first", "left")
        builder.add_edge("first", "right")
        builder.add_edge(["left", "right"], "last")
        return builder

    project = WorkflowProject(
        "transient", build, db_path=tmp_path / "w.db", output_dir=tmp_path / "o", transient=[Hiccup]
    )
    project.variant("last", "v", trouble.body("last-v"))
    with TestBench(project) as bench:
        yield bench


@pytest.fixture
def waits(bench: TestBench) -> list[float]:
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)

    backoff = Backoff(chance=lambda: 1.0, sleep=note)
    bench._sessions._own = replace(bench.session, backoff=backoff)
    return noted


def files(bench: TestBench, execution_id: str | None) -> dict[str, str]:
    assert execution_id is not None
    blobs = bench.project.locations.output_dir / "blobs" / "objects"
    return {
        path: (blobs / found.blob_id[:2] / found.blob_id[2:]).read_text()
        for path, found in bench.files(execution_id).items()
    }


@pytest.mark.parametrize("node", ["first", "right"])
def test_a_shared_node_is_tried_again_once_for_all_its_cells(
    bench: TestBench, trouble: Trouble, waits: list[float], node: str
) -> None:
    """Only the failed node runs again; no file of the failed attempt is left anywhere."""
    trouble.left[node] = 2
    result = bench.batch(MATRIX, CASES, runner="inline", max_parallel=1)
    assert {cell.status for cell in result.cells} == {"completed"}
    assert CALLS.take() == {
        **{name: 2 + (2 if name == node else 0) for name in ("first", "left", "right")},
        "last": 2,
        "last-v": 2,
    }
    assert result.node_executions == result.report.node_executions == 2 * 5 + 2
    assert waits == [0.5, 1.0]
    logs = [sorted(cell.state["log"])[:3] for cell in result.cells]
    assert logs == [["first", "last", "left"], ["first", "last-v", "left"]] * 2
    for cell in result.cells:
        last = "last" if cell.combination == "baseline" else "last-v"
        assert files(bench, cell.execution_id) == {
            "first.txt": "first 0\n",
            "left.txt": "left 1\n",
            "right.txt": "right 1\n",
            f"{last}.txt": f"{last} 3\n",
        }
        assert cell.execution_id is not None
        seen = [point.nodes for point in bench.history(cell.execution_id)]
        assert [sorted(nodes) for nodes in seen] == [[], [], ["first"], ["left", "right"], ["last"]]


def test_retries_are_shown(bench: TestBench, trouble: Trouble, waits: list[float]) -> None:
    trouble.left["first"] = 2
    report = bench.batch(MATRIX, CASES, runner="inline", max_parallel=1).report
    assert report.retries == 2  # once for the two cells that share the stretch
    assert [cell.retries for cell in report.cells] == [2, 2, 0, 0]
    assert cell_line(report.cells[0]) == "(2 retries)"
    assert bodies_line(report).endswith("; 2 retries after transient errors")
    document = json.loads(json.dumps(report_document(report, cells=True), default=str))
    assert [cell["retries"] for cell in document["cells"]] == [2, 2, 0, 0]


def test_a_lasting_error_is_not_tried_again(
    bench: TestBench, trouble: Trouble, waits: list[float]
) -> None:
    trouble.left["last-v"], trouble.error = 1, lambda: ValueError("wrong")
    result = bench.batch(MATRIX, CASES[:1], runner="inline")
    assert [cell.status for cell in result.cells] == ["completed", "failed"]
    assert CALLS.take()["last-v"] == 1
    assert waits == []


def test_an_error_of_the_project_is(bench: TestBench, trouble: Trouble, waits: list[float]) -> None:
    trouble.left["last-v"], trouble.error = 1, Hiccup
    result = bench.batch(MATRIX, CASES[:1], runner="inline")
    assert [cell.status for cell in result.cells] == ["completed", "completed"]
    assert len(waits) == 1


def test_attempts_are_bounded(bench: TestBench, trouble: Trouble, waits: list[float]) -> None:
    """Then the cells fail, with the node and the last error, and what the attempts cost."""
    trouble.left["first"] = 99
    result = bench.batch(MATRIX, CASES[:1], runner="inline", retries=2)
    assert [cell.status for cell in result.cells] == ["failed", "failed"]
    error = result.cells[0].error
    assert error is not None
    assert (error.node, error.type) == ("first", "TimeoutError")
    assert CALLS.take() == {"first": 3}
    assert result.node_executions == 3
    assert result.report.retries == 2
    trouble.left["first"] = 99
    bench.batch(MATRIX, CASES[1:], runner="inline", retries=0)
    assert CALLS.take() == {"first": 1}


def test_cancelled_while_waiting_goes_on_from_the_record(
    bench: TestBench, trouble: Trouble
) -> None:
    """The wait ends at once; the same request runs the failed node again, and nothing before it."""
    trouble.left["last"] = 1
    waiting = asyncio.Event()

    async def forever(seconds: float) -> None:
        waiting.set()
        await asyncio.sleep(3600)

    session = replace(bench.session, backoff=Backoff(sleep=forever))
    run = BatchRun(owner=this_process(), runner_name="inline", is_alive=is_alive)
    request = BatchRequest(matrix=None, cases=CASES[:1])

    async def cancelled() -> None:
        task = asyncio.create_task(
            run_batch_test(request, session, lambda scope: InlineRunner(scope, session, 2), run)
        )
        await waiting.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert bench.results().status == "interrupted"
    result = bench.batch(None, CASES[:1], runner="inline")
    assert [cell.status for cell in result.cells] == ["completed"]
    assert result.report.retries == 1
    assert CALLS.take() == {"first": 1, "left": 1, "right": 1, "last": 2}


def test_a_sibling_that_still_runs_does_not_write_into_the_next_attempt(
    bench: TestBench, trouble: Trouble, waits: list[float]
) -> None:
    """`left` fails at once while `right` goes on in its thread: the attempt after waits for it."""
    trouble.left["left"] = 1
    result = bench.batch(None, CASES[:1], runner="inline")
    assert CALLS.take() == {"first": 1, "left": 2, "right": 2, "last": 1}
    assert files(bench, result.cells[0].execution_id) == {
        "first.txt": "first 0\n",
        "left.txt": "left 1\n",
        "right.txt": "right 1\n",
        "last.txt": "last 3\n",
    }
