"""Remote nodes on a real Prefect server and a real Ray with two CPUs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from wtb_prefect import Recorded, TestBench
from wtb_prefect.api.server import PrefectServer
from wtb_prefect.errors import InvalidInputError

PROJECT = """
import operator, os, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

class State(TypedDict):
    log: Annotated[list[str], operator.add]
    pids: Annotated[list[int], operator.add]
    do: str

def before(state: State):
    (current_workspace() / "before.txt").write_text("b")
    return {"log": ["before"], "pids": [os.getpid()]}

def embed(state: State):
    folder = current_workspace()
    assert (folder / "before.txt").read_text() == "b"
    (folder / "embedded.txt").write_text("e")
    if state["do"] == "raise":
        raise Odd("this", "that")
    if state["do"] == "die" and not (HERE / "died").exists():
        (HERE / "died").touch()
        os._exit(1)
    time.sleep(0.2)
    return {"log": ["embed"], "pids": [os.getpid()]}

async def embed_b(state: State):
    return {"log": ["embed_b"], "pids": [os.getpid()]}

def after(state: State):
    return {"log": ["after"], "pids": [os.getpid()]}

def build():
    builder = StateGraph(State)
    for pair in (("before", before), ("embed", embed), ("after", after)):
        builder.add_node(*pair)
    builder.add_edge(START, "before")
    builder.add_edge("before", "embed")
    builder.add_edge("embed", "after")
    return builder

def made(name, **needs):
    project = WorkflowProject(name, build, db_path=HERE / "wtb.db", output_dir=HERE / "out")
    project.variant("embed", "b", embed_b)
    project.variant("after", "again", lambda s: {"log": ["again"], "pids": [os.getpid()]})
    project.remote("embed", **needs)
    return project

def canned(state):
    return {"log": [f"canned after {state['log'][-1]}"], "pids": [os.getpid()]}

project = made("remote")
greedy = made("greedy", num_gpus=1)
"""

pytestmark = [pytest.mark.prefect, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    (folder / "remote_nodes_project.py").write_text(PROJECT)
    sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="module")
def server_home(folder: Path) -> Path:
    return folder


@pytest.fixture
def projects(server: PrefectServer, ray: Any) -> Iterator[Any]:
    import remote_nodes_project  # type: ignore[import-not-found]  # written by the fixture

    with temporary_settings({PREFECT_API_URL: server.url}):
        yield remote_nodes_project


def cases(*names: str) -> list[dict[str, Any]]:
    return [{"id": n, "state": {"log": [], "pids": [], "do": n.partition("-")[0]}} for n in names]


def test_a_body_runs_in_a_process_of_its_own(projects: Any) -> None:
    """With both CPUs' slots taken by stretches that wait for remote nodes, nothing hangs; prefixes
    are shared as ever, variants too run elsewhere, and files and failures come back."""
    names = [f"fine-{number}" for number in range(4)] + ["raise"]
    with TestBench(projects.project) as bench:
        result = bench.batch(
            {"embed": "*", "after": "*"}, cases(*names), runner="ray", max_parallel=4
        )
        done = [cell for cell in result.cells if cell.case_id != "raise"]
        assert {cell.status for cell in done} == {"completed"}
        assert result.node_executions == 4 * (1 + 2 + 4) + (1 + 2 + 2)
        for cell in done:
            variant = "embed_b" if "embed=b" in cell.combination else "embed"
            last = "again" if "after=again" in cell.combination else "after"
            assert cell.state["log"] == ["before", variant, last]
            here, elsewhere, there = cell.state["pids"]
            assert elsewhere not in {here, there, os.getpid()}
            expected = {"before.txt"} | ({"embedded.txt"} if variant == "embed" else set())
            assert set(bench.files(str(cell.execution_id))) == expected
        failed = [cell for cell in result.cells if cell.error is not None]
        assert {cell.combination for cell in failed} == {"baseline", "after=again"}
        for cell in failed:
            assert cell.error is not None
            assert (cell.error.node, cell.error.type) == ("embed", "Odd")
            assert cell.error.message == "this and that"
            assert 'raise Odd("this", "that")' in cell.error.traceback


def test_a_lost_process_is_no_fault_of_the_workflow(projects: Any, folder: Path) -> None:
    with TestBench(projects.project) as bench:
        result = bench.batch(cases=cases("die"), runner="ray", batch_id="die")
    assert (folder / "died").exists()
    assert [cell.status for cell in result.cells] == ["completed"]
    assert result.cells[0].state["log"] == ["before", "embed", "after"]


def test_what_this_ray_does_not_have_is_refused(projects: Any) -> None:
    with (
        TestBench(projects.greedy) as bench,
        pytest.raises(InvalidInputError, match="asks for 1 GPU; this Ray has 0"),
    ):
        bench.batch(cases=cases("fine"), runner="ray")


def test_mocks_recordings_and_the_self_check_on_ray(projects: Any) -> None:
    """A function is imported by the workers; a recording made there is replayed there; the
    self-check runs here, in place."""
    with TestBench(projects.project) as bench:
        mocked = bench.batch(cases=cases("fine"), runner="ray", mocks={"embed": projects.canned})
        assert mocked.cells[0].state["log"] == ["before", "canned after before", "after"]
        assert mocked.cells[0].state["pids"][0] != os.getpid()
        first = bench.batch(cases=cases("fine"), runner="ray", record=["embed"], batch_id="rec")
        replayed = bench.batch(
            {"after": "*"}, cases("fine"), runner="ray", mocks={"embed": Recorded()}, self_check=2
        )
        for cell in replayed.cells:
            assert cell.state["pids"][1] == first.cells[0].state["pids"][1]
            assert set(bench.files(str(cell.execution_id))) == {"before.txt", "embedded.txt"}
        found = replayed.report.self_check
        assert found is not None
        assert found["checked"] == 2
        assert "state key 'pids'" in found["differences"][0]["where"]
