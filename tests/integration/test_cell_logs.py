"""What user code prints and logs: kept with its execution, the same to everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import operator
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.domain.log_line import LogLine
from wtb_prefect.infrastructure.logs.capture import silenced
from wtb_prefect.infrastructure.logs.cell_logs import CellLog, CellLogs

Open = Callable[..., TestBench]
logger = logging.getLogger("a.library")


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


CASES: list[dict[str, Any]] = [{"id": "c", "state": {"log": ["in"]}}]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Open]:
    opened = []

    def make(**bodies: Any) -> TestBench:
        """Nodes one after the other; `second__loud` is a variant, `evaluate_x` an evaluator."""
        builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        before = START
        project = WorkflowProject("p", builder, db_path=tmp_path / "w.db", output_dir=tmp_path)
        for name, body in bodies.items():
            node, _, variant = name.partition("__")
            if name.startswith("evaluate_"):
                project.evaluator(body, name=name.removeprefix("evaluate_"))
            elif variant:
                project.variant(node, variant, body)
            else:
                builder.add_node(node, body)
                builder.add_edge(before, node)
                before = node
        opened.append(TestBench(project))
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


def run(bench: TestBench, matrix: Any = None, **options: Any) -> dict[str, list[LogLine]]:
    """The lines of each cell, by combination and case."""
    options = {"cases": CASES, **options}
    result = bench.batch(matrix=matrix, runner="inline", **options)
    return {
        f"{cell.combination}/{cell.case_id}": bench.logs(str(cell.execution_id))
        for cell in result.cells
    }


def shown(lines: list[LogLine]) -> list[tuple[str | None, str, str]]:
    return [(line.node, line.level, line.text) for line in lines]


def says(text: str) -> Callable[[State], dict[str, Any]]:
    def node(state: State) -> dict[str, Any]:
        print(text)
        return {"log": [text]}

    return node


def test_prints_records_and_failures_over_the_lineage(
    open_bench: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    async def second(state: State) -> dict[str, Any]:
        print("asynchronous", file=sys.stderr)
        await asyncio.sleep(0)
        logger.warning("a number: %d", 7)
        return {"log": ["second"]}

    def loud(state: State) -> dict[str, Any]:
        print("before it fails")
        raise ValueError("no way")

    def score(state: State) -> int:
        print("scoring")
        return 1

    bench = open_bench(first=says("shared"), second=second, second__loud=loud, evaluate_size=score)
    found = run(bench, {"second": "*"})
    assert shown(found["baseline/c"]) == [
        ("first", "stdout", "shared"),
        ("second", "stderr", "asynchronous"),
        ("second", "WARNING", "a.library: a number: 7"),
        ("evaluator size", "stdout", "scoring"),
    ]
    *before, failure = found["second=loud/c"]
    assert shown(before) == [("first", "stdout", "shared"), ("second", "stdout", "before it fails")]
    assert (failure.node, failure.level) == ("second", "traceback")
    assert "ValueError: no way" in failure.text
    # Whoever runs a batch from Python still sees what nodes print.
    passed = capsys.readouterr()
    assert passed.out.splitlines().count("shared") == 1
    assert {"before it fails", "scoring"} <= set(passed.out.splitlines())
    assert "asynchronous" in passed.err


def test_silenced_prints_are_kept_and_not_shown(
    open_bench: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    def node(state: State) -> dict[str, Any]:
        print("quiet")
        logger.error("quiet too")
        return {}

    with silenced():
        found = run(open_bench(first=node))
    print("not of a node")
    assert [line.text for line in found["baseline/c"]] == ["quiet", "a.library: quiet too"]
    assert capsys.readouterr() == ("not of a node\n", "")


def test_partial_prints_of_parallel_tasks_do_not_mix(open_bench: Open) -> None:
    meet = threading.Barrier(4)

    def worker(state: Any) -> dict[str, Any]:
        for part in range(5):
            meet.wait(10)
            print(state["name"], end="")
            meet.wait(10)
            print(part, end=" ")
        print()
        return {"log": [state["name"]]}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    builder.add_node("worker", worker)
    builder.add_conditional_edges(
        START, lambda _: [Send("worker", {"name": name}) for name in "abcd"], ["worker"]
    )
    bench = open_bench()
    bench.project.graph = builder
    lines = run(bench)["baseline/c"]
    assert sorted(line.text for line in lines) == [
        " ".join(f"{name}{part}" for part in range(5)) + " " for name in "abcd"
    ]


def test_nodes_of_subgraphs_are_named_by_their_path(open_bench: Open) -> None:
    inner: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    inner.add_node("deep", says("from the deep"))
    inner.add_edge(START, "deep")
    lines = run(open_bench(outer=inner.compile(), last=says("above")))["baseline/c"]
    assert shown(lines) == [("outer|deep", "stdout", "from the deep"), ("last", "stdout", "above")]


def test_cells_in_flight_keep_their_own_lines(open_bench: Open) -> None:
    async def node(state: State) -> dict[str, Any]:
        for _ in range(3):
            print(state["log"][0])
            await asyncio.sleep(0.001)
        return {}

    cases = [{"id": f"c{n}", "state": {"log": [f"case {n}"]}} for n in range(20)]
    found = run(open_bench(first=node), cases=cases, max_parallel=10)
    assert len(found) == 20
    for place, lines in found.items():
        assert [line.text for line in lines] == [f"case {place.partition('/c')[2]}"] * 3


def test_logging_works_for_user_code_as_without_the_bench(
    open_bench: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a handler on the root logger, `basicConfig` would do nothing and the last-resort
    handler would not print; a logger that does not propagate would never be seen."""
    alone = logging.getLogger("alone")
    alone.propagate = False
    root = logging.getLogger()
    before, root.handlers = root.handlers, []  # pytest has handlers of its own there

    def node(state: State) -> dict[str, Any]:
        logger.warning("by the last resort")
        alone.warning("kept to itself")
        assert not root.handlers
        try:
            raise KeyError("odd")
        except KeyError:
            logger.exception("with its traceback")
        return {}

    try:
        lines = run(open_bench(first=node))["baseline/c"]
    finally:
        root.handlers, alone.propagate = before, True
    assert shown(lines[:2]) == [
        ("first", "WARNING", "a.library: by the last resort"),
        ("first", "WARNING", "alone: kept to itself"),
    ]
    assert lines[2].text.startswith("a.library: with its traceback\nTraceback")
    assert lines[2].text.endswith("KeyError: 'odd'")
    assert len(lines) == 3, "a record that a handler prints was kept twice"
    assert "by the last resort" in capsys.readouterr().err


def test_streams_and_logging_are_as_before_after_every_end(open_bench: Open) -> None:
    """Also in two threads at once, inside somebody's redirection, and after a failure."""
    before = (sys.stdout, sys.stderr, logging.Logger.callHandlers)

    def fails(state: State) -> dict[str, Any]:
        raise ValueError

    bench, other = open_bench(first=says("x")), open_bench(first=fails)
    bench.plan(cases=CASES)  # the ledger is made once
    inside = io.StringIO()
    with contextlib.redirect_stdout(inside):
        threads = [
            threading.Thread(target=run, args=(one,), kwargs={"batch_id": f"b{n}"})
            for n, one in enumerate((bench, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sys.stdout is inside
    assert inside.getvalue() == "x\n"
    assert (sys.stdout, sys.stderr, logging.Logger.callHandlers) == before


def test_a_stream_wrapped_meanwhile_is_left_alone(open_bench: Open) -> None:
    """As a progress display does that is begun by a node and ended later."""
    before = sys.stdout
    display = io.StringIO()
    stack = contextlib.ExitStack()

    def node(state: State) -> dict[str, Any]:
        print("before")
        stack.enter_context(contextlib.redirect_stdout(display))
        print("to the display")
        return {}

    lines = run(open_bench(first=node))["baseline/c"]
    assert sys.stdout is display
    stack.close()  # puts back what was there: ours, which only passes on now
    print("after")
    assert [line.text for line in lines] == ["before"]
    sys.stdout = before


def test_bytes_progress_bars_and_lines_without_end(open_bench: Open) -> None:
    def node(state: State) -> dict[str, Any]:
        sys.stdout.buffer.write(b"odd \xff byte\n")
        for percent in (0, 50, 100):
            sys.stderr.write(f"\r{percent} %")
        sys.stderr.write("\n")
        print("half a pair \udc80 and no end", end="")
        sys.stdout.writelines(["", ""])
        return {}

    lines = run(open_bench(first=node))["baseline/c"]
    assert sorted(line.text for line in lines) == [
        "100 %",
        "half a pair \udc80 and no end",
        "odd \\xff byte",
    ]


CRASHES = """
import os, sys
from pathlib import Path
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject

def node(state):
    print("the last words")
    os._exit(9)

builder = StateGraph(dict)
builder.add_node("node", node)
builder.add_edge(START, "node")
where = Path(sys.argv[1])
project = WorkflowProject("p", builder, db_path=where / "w.db", output_dir=where)
TestBench(project).batch(cases=[{"id": "c", "state": {}}], runner="inline")
"""


def test_a_killed_process_keeps_what_was_printed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CRASHES, str(tmp_path)], check=False)
    assert ended.returncode == 9
    (file,) = (tmp_path / "logs").iterdir()
    (line,) = CellLogs(tmp_path / "logs").read(file.stem)
    assert (line.node, line.text) == ("node", "the last words")


def test_a_log_that_cannot_be_written_does_not_fail_the_node(
    open_bench: Open, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    bench = open_bench(first=says("lost"))
    result = bench.batch(cases=CASES, runner="inline")
    assert result.cells[0].status == "completed"
    assert capfd.readouterr().err.count("cannot be written") == 1


def test_a_line_cut_short_is_shown_as_it_is(tmp_path: Path) -> None:
    log = CellLog(tmp_path / "e.log")
    log.record("INFO", None, "whole")
    with (tmp_path / "e.log").open("ab") as file:
        file.write(b'["2026-01')
    assert [line.level for line in CellLogs(tmp_path).read("e")] == ["damaged", "INFO"]


def test_nobody_prints_and_nothing_is_made(open_bench: Open, tmp_path: Path) -> None:
    bench = open_bench(first=lambda state: {})
    assert run(bench) == {"baseline/c": []}
    assert not (tmp_path / "logs").exists()
