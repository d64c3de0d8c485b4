"""The whole path on a real Prefect server and a real local Ray."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from wtb_prefect import TestBench
from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner
from wtb_prefect.api.server import PrefectServer, prefect_server

PROJECT = """
import operator, os, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent

class State(TypedDict):
    log: Annotated[list[str], operator.add]
    kill: bool

def node(name):
    def body(state: State):
        if name == "n4b" and state["kill"]:
            time.sleep(0.5)
            os._exit(1)
        (current_workspace() / f"{name[:2]}.txt").write_text(name + str(len(state["log"])))
        return {"log": [name]}
    return body

def build():
    builder = StateGraph(State)
    for number in range(6):
        builder.add_node(f"n{number}", node(f"n{number}"))
    builder.add_edge(START, "n0")
    for number in range(5):
        builder.add_edge(f"n{number}", f"n{number + 1}")
    return builder

project = WorkflowProject("on-ray", build, db_path=HERE / "wtb.db", output_dir=HERE / "out")
for number in (3, 4, 5):
    for variant in "ab":
        project.variant(f"n{number}", variant, node(f"n{number}{variant}"))

@project.evaluator(primary=True)
def a_count(state) -> int:
    return sum(name.endswith("a") for name in state["log"])
"""
MATRIX = {"n3": "*", "n4": "*", "n5": "*"}

pytestmark = [pytest.mark.prefect, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("on-ray")
    (folder / "ray_bench_project.py").write_text(PROJECT)
    sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[PrefectServer]:
    """One server and one Ray for all tests: each takes ten seconds to start."""
    with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def ray(server: PrefectServer) -> Iterator[Any]:
    with (
        temporary_settings({PREFECT_API_URL: server.url}),
        SegmentRayTaskRunner(num_cpus=2) as runner,
    ):
        yield runner.start()


@pytest.fixture
def bench(server: PrefectServer, ray: Any, folder: Path) -> Iterator[TestBench]:
    import ray_bench_project  # type: ignore[import-not-found]  # written by the fixture

    with (
        temporary_settings({PREFECT_API_URL: server.url}),
        TestBench(ray_bench_project.project) as bench,
    ):
        yield bench


def cases(*names: str) -> list[dict[str, Any]]:
    return [{"id": name, "state": {"log": [], "kill": name.startswith("killer")}} for name in names]


def answers(bench: TestBench, result: Any) -> dict[tuple[str, str], Any]:
    return {
        (cell.case_id, cell.combination): (
            cell.state["log"],
            {path: memento.blob_id for path, memento in bench.files(cell.execution_id).items()},
            [c.nodes for c in bench.history(cell.execution_id)],
            dict(cell.scores),
        )
        for cell in result.cells
    }


def test_ray_gives_what_inline_gives_and_shares_as_much(bench: TestBench) -> None:
    """Same state, files, path and scores; 42 node bodies a case instead of 162."""
    on_ray = bench.batch(MATRIX, cases("x", "y", "z"), runner="ray", batch_id="on-ray")
    inline = bench.batch(MATRIX, cases("x", "y", "z"), runner="inline", batch_id="inline")
    assert on_ray.status == "completed"
    assert on_ray.node_executions == inline.node_executions == 3 * 42
    assert answers(bench, on_ray) == answers(bench, inline)
    again = bench.batch(MATRIX, cases("x", "y", "z"), runner="ray", batch_id="on-ray")
    assert again.node_executions == 0


def test_prefect_shows_the_batch(bench: TestBench, server: PrefectServer) -> None:
    """Few task runs, all ended; a summary and a progress artifact; events with our ids."""
    bench.batch(MATRIX, cases("p", "q"), runner="ray", batch_id="shown")
    with httpx.Client(base_url=server.url) as client:
        [run] = client.post(
            "/flow_runs/filter", json={"flow_runs": {"tags": {"all_": ["batch:shown"]}}}
        ).json()
        flow_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        tasks = client.post("/task_runs/filter", json=flow_run).json()
        artifacts = client.post("/artifacts/filter", json=flow_run).json()
        leaves = _events(client, "wtb.execution.completed", "shown", 54)
        forks = _events(client, "wtb.execution.forked", "shown", 26)
        finished = _events(client, "wtb.batch.finished", "shown", 1)
    assert run["name"] == "batch-test ray_bench_project:project shown"
    assert run["state_name"] == "Completed"
    assert 0 < len(tasks) <= 4 * 2 + 20
    assert {task["state_name"] for task in tasks} == {"Completed"}
    assert {"wtb-batch-shown", "wtb-progress-shown"} <= {a["key"] for a in artifacts}
    assert len(set(leaves)) == len(leaves) == 54
    assert len(set(forks)) == len(forks) == 2 * (1 + 3 + 9)
    assert finished == ["wtb.batch.shown"]


def _events(client: httpx.Client, name: str, batch: str, expected: int) -> list[str]:
    """Resource ids of a batch's events of a name; the server records events within seconds."""
    wanted = {"event": {"name": [name]}, "any_resource": {"id": [f"wtb.batch.{batch}"]}}
    found: list[str] = []
    for _ in range(20):
        page = client.post("/events/filter", json={"filter": wanted, "limit": 50}).json()
        events = page["events"]
        while page.get("next_page"):
            page = client.get(page["next_page"].partition("/api")[2]).json()
            events += page["events"]
        found = [event["resource"]["prefect.resource.id"] for event in events]
        if len(found) >= expected:
            break
        time.sleep(1)
    return found


def test_a_killed_worker_costs_its_cell_and_no_other_case(bench: TestBench) -> None:
    """The node calls os._exit: crashed, not failed; the other cases are complete."""
    result = bench.batch(
        {"n4": ["original", "b"]}, cases("killer", "u", "v"), runner="ray", batch_id="killed"
    )
    ends = {(cell.case_id, cell.combination): cell.status for cell in result.cells}
    assert ends["killer", "n4=b"] == "crashed"
    others = {end for (case, _), end in ends.items() if case != "killer"}
    assert others == {"completed"}
    assert result.status == "failed"
    row = next(row for row in result.table() if row.combination == "n4=b")
    assert (row.crashed, row.completed, row.failed) == (1, 2, 0)


def test_threads_run_the_same_flow(bench: TestBench) -> None:
    """Prefect's thread runner instead of Ray."""
    result = bench.batch(MATRIX, cases("x"), runner="threads", batch_id="threads")
    assert result.node_executions == 42
    assert result.best == "n3=a,n4=a,n5=a"
