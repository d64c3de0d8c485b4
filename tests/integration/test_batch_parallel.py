"""Stretches side by side, in one process and in several: nobody writes into another's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wtb_prefect import TestBench
from wtb_prefect.infrastructure.workflow.graph_source import load_attribute

SOURCE = '''
import operator, threading, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent
together = threading.Barrier(4)

class State(TypedDict):
    log: Annotated[list, operator.add]
    name: str

def write(state, what):
    """Everybody writes files of the same names, slowly, and reads them again."""
    folder = current_workspace()
    with (folder / "shared.txt").open("a") as file:
        for _ in range(5):
            file.write(f"{state['name']} {what}\\n")
            file.flush()
            time.sleep(0.002)
    return {"log": [(folder / "shared.txt").read_text()]}

def first(state: State):
    if (HERE / "meet").exists():
        together.wait(20)  # four bodies are here at once, or this fails
    return write(state, "first")

def second(state: State):
    return write(state, "second")

def other(state: State):
    return write(state, "other")

def index(state: State):
    with (HERE / "indexed.txt").open("a") as file:
        file.write("once\\n")
    (current_workspace() / "index.txt").write_text("index")
    time.sleep(0.2)
    return {"log": ["index"]}

def build():
    graph = StateGraph(State)
    for node in (index, first, second):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "index")
    graph.add_edge("index", "first")
    graph.add_edge("first", "second")
    return graph

project = WorkflowProject("parallel", build, db_path=HERE / "w.db", output_dir=HERE / "out")
project.variant("second", "other", other)
project.cached("index", reads=[])
'''

MATRIX = {"second": "*"}
CASES = [{"id": name, "state": {"log": [], "name": name}} for name in "abcdefgh"]

RUN = """
import sys
from wtb_prefect import TestBench
from wtb_prefect.infrastructure.workflow.graph_source import load_attribute
cases = [{"id": n, "state": {"log": [], "name": n}} for n in sys.argv[2]]
with TestBench(load_attribute(sys.argv[1] + ":project")) as bench:
    result = bench.batch({"second": "*"}, cases, runner="inline", max_parallel=4)
    assert {cell.status for cell in result.cells} == {"completed"}, result.cells
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "parallel_project.py"
    found.write_text(SOURCE)
    return found


def answers(bench: TestBench, cells: Any) -> dict[tuple[str, str], Any]:
    """State and files of every cell."""
    return {
        (cell.case_id, cell.combination): (
            cell.state["log"],
            {path: m.blob_id for path, m in bench.files(cell.execution_id).items()},
        )
        for cell in cells
    }


def expected(name: str, last: str) -> list[str]:
    first = f"{name} first\n" * 5
    return ["index", first, first + f"{name} {last}\n" * 5]


def test_four_at_once_equal_one_after_the_other(file: Path) -> None:
    """The bodies meet at a barrier: they do run side by side."""
    (file.parent / "meet").touch()
    with TestBench(load_attribute(f"{file}:project")) as bench:
        parallel = bench.batch(MATRIX, CASES, runner="inline", max_parallel=4, batch_id="at-once")
        (file.parent / "meet").unlink()
        alone = bench.batch(MATRIX, CASES, runner="inline", max_parallel=1, batch_id="alone")
        assert answers(bench, parallel.cells) == answers(bench, alone.cells)
        for cell in parallel.cells:
            last = "other" if cell.combination == "second=other" else "second"
            assert cell.state["log"] == expected(cell.case_id, last)
    # One index for all, one first and two seconds for each: the fork costs one body.
    assert parallel.node_executions == 1 + 8 * 3


def test_processes_share_a_ledger_and_a_cache(file: Path) -> None:
    """Four batches of one project at once, each with cases of its own and some of others."""
    groups = ("abc", "cde", "efg", "gha")
    running = [
        subprocess.Popen([sys.executable, "-c", RUN, str(file), group], stderr=subprocess.PIPE)
        for group in groups
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
    assert (file.parent / "indexed.txt").read_text() == "once\n"
    with TestBench(load_attribute(f"{file}:project")) as bench:
        with bench.session.open_uow() as uow:
            batches = uow.batch_tests.list(bench.session.project.workflow_id)
        assert [batch.status for batch in batches] == ["completed"] * 4
        found = [cell for batch in batches for cell in bench.results(batch.batch_id).cells]
        assert len(found) == 4 * 6
        for cell in found:
            last = "other" if cell.combination == "second=other" else "second"
            assert cell.state["log"] == expected(cell.case_id, last)
