"""The whole path on a real Prefect server and a real local Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from wtb_prefect import TestBench
from wtb_prefect.api.server import PrefectServer

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
    hang: bool

def node(name):
    def body(state: State):
        if name == "n5b" and state["kill"] and "n4b" in state["log"]:
            time.sleep(0.5)
            os._exit(1)
        if name == "n5b" and state["hang"]:
            time.sleep(300)
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
LEAKY = """
import logging, os
from pathlib import Path
from typing import TypedDict
from langgraph.graph import START, StateGraph
from prefect import get_run_logger
from wtb_prefect import WorkflowProject

HERE = Path(__file__).parent

class State(TypedDict, total=False):
    case: str
    seen: str

def first(state: State):
    key = os.environ["FAKE_API_KEY"]
    print("printed", key)
    logging.getLogger("client").warning("logged %s", key)
    get_run_logger().warning("for Prefect: %s", key)
    Path("relative.txt").write_text(state["case"])
    tracked = os.environ["DO_NOT_TRACK"] + os.environ["RAY_USAGE_STATS_ENABLED"]
    return {"seen": f"{len(key)} characters for {state['case']} {tracked}"}

def last(state: State):
    return {}

def raises(state: State):
    assert Path("relative.txt").read_text() == state["case"]
    raise RuntimeError("refused: " + os.environ["FAKE_API_KEY"])

def build():
    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("last", last)
    builder.add_edge(START, "first")
    builder.add_edge("first", "last")
    return builder

project = WorkflowProject("leaky", build, db_path=HERE / "leaky.db",
                          output_dir=HERE / "leaky", cwd="workspace")
project.variant("last", "raises", raises)

@project.evaluator
def score(state):
    raise ValueError(os.environ["FAKE_API_KEY"])
"""
SCRIPT = """
from pathlib import Path
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject

HERE = Path(__file__).parent
builder = StateGraph(dict)
builder.add_node("node", lambda state: {"answer": 42})
builder.add_edge(START, "node")
project = WorkflowProject("script", builder, db_path=HERE / "script.db", output_dir=HERE / "script")

def main():
    with TestBench(project) as bench:
        result = bench.batch(cases=[{"id": "c", "state": {}}], runner="ray")
        print(result.status, result.node_executions)

GUARD
    main()
"""
CANARY = "sk-canary-0123456789"
MATRIX = {"n3": "*", "n4": "*", "n5": "*"}

pytestmark = [pytest.mark.prefect, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that is stored by these tests, with a secret in the environment of all of them."""
    folder = tmp_path_factory.mktemp("on-ray")
    (folder / "ray_bench_project.py").write_text(PROJECT)
    (folder / "ray_leaky_project.py").write_text(LEAKY)
    sys.path.insert(0, str(folder))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FAKE_API_KEY", CANARY)
        yield folder


@pytest.fixture(scope="module")
def server_home(folder: Path) -> Path:
    return folder


@pytest.fixture
def bench(server: PrefectServer, ray: Any, folder: Path) -> Iterator[TestBench]:
    import ray_bench_project  # type: ignore[import-not-found]  # written by the fixture

    with (
        temporary_settings({PREFECT_API_URL: server.url}),
        TestBench(ray_bench_project.project) as bench,
    ):
        yield bench


def cases(*names: str) -> list[dict[str, Any]]:
    return [
        {"id": name, "state": {"log": [], "kill": name == "killer", "hang": name == "hanging"}}
        for name in names
    ]


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


def test_ray_and_prefect_with_postgres_in_the_place_of_files(
    server: PrefectServer, ray: Any, folder: Path, postgres_url: str
) -> None:
    """Workers write to one database from processes of their own, one of which is killed."""
    text = PROJECT.replace('db_path=HERE / "wtb.db"', f"database_url={postgres_url!r}")
    (folder / "ray_postgres_project.py").write_text(text.replace('"out"', '"postgres"'))
    import ray_postgres_project  # type: ignore[import-not-found]  # just written

    some = {"n4": ["original", "b"], "n5": ["original", "b"]}
    with (
        temporary_settings({PREFECT_API_URL: server.url}),
        TestBench(ray_postgres_project.project) as bench,
    ):
        on_ray = bench.batch(MATRIX, cases("x", "y"), runner="ray", batch_id="pg-on-ray")
        inline = bench.batch(MATRIX, cases("x", "y"), runner="inline", batch_id="pg-inline")
        assert on_ray.node_executions == inline.node_executions == 2 * 42
        assert answers(bench, on_ray) == answers(bench, inline)
        killed = bench.batch(some, cases("killer", "z"), runner="ray", batch_id="pg-killed")
        ends = [cell.status for cell in killed.cells]
        assert (ends.count("completed"), ends.count("crashed")) == (7, 1)
        bench.verify_outbox()
        with bench.session.open_uow() as uow:
            claims = uow.outbox.metrics(datetime.now(UTC))
        assert (claims.pending, claims.failed) == (0, 0)
        assert bench.check_integrity(deep=True).issues == ()
    assert task_states(server, "pg-on-ray") == {"Completed"}
    assert not list(folder.rglob("*postgres*/**/*.db"))


def test_prefect_shows_the_batch(bench: TestBench, server: PrefectServer) -> None:
    """Few task runs, all ended; a summary and a progress artifact; events with our ids."""
    bench.batch(MATRIX, cases("p", "q"), runner="ray", batch_id="shown")
    with httpx.Client(base_url=server.url) as client:
        [run] = client.post(
            "/flow_runs/filter", json={"flow_runs": {"tags": {"all_": ["batch:shown"]}}}
        ).json()
        flow_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        artifacts = client.post("/artifacts/filter", json=flow_run).json()
        leaves = _events(client, "wtb.execution.completed", "shown", 54)
        forks = _events(client, "wtb.execution.forked", "shown", 26)
        finished = _events(client, "wtb.batch.finished", "shown", 1)
        states = task_states(server, "shown")  # the server records them within seconds, too
        tasks = client.post("/task_runs/filter", json=flow_run).json()
    assert run["name"] == "batch-test ray_bench_project:project shown"
    assert run["state_name"] == "Completed"
    assert 0 < len(tasks) <= 4 * 2 + 20
    assert states == {task["state_name"] for task in tasks} == {"Completed"}
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
        # Pages that are read while events come in overlap.
        if len(set(found)) >= expected:
            break
        time.sleep(1)
    return found


def task_states(server: PrefectServer, batch: str) -> set[str]:
    """States of a batch's task runs, once none is Running or 60 s have passed."""
    with httpx.Client(base_url=server.url) as client:
        tags = {"flow_runs": {"tags": {"all_": [f"batch:{batch}"]}}, "limit": 200}
        for _ in range(60):
            states = {
                run["state_name"] for run in client.post("/task_runs/filter", json=tags).json()
            }
            if not states & {"Running", "Pending"}:
                break
            time.sleep(1)
    return states


def test_a_killed_worker_costs_its_cell_and_no_other(
    bench: TestBench, server: PrefectServer
) -> None:
    """One of 200 cells calls os._exit: crashed, not failed; 199 complete, every body counted."""
    names = [f"c{number}" for number in range(49)]
    matrix = {"n4": ["original", "b"], "n5": ["original", "b"]}
    result = bench.batch(matrix, cases("killer", *names), runner="ray", batch_id="killed")
    ends = {(cell.case_id, cell.combination): cell.status for cell in result.cells}
    assert len(ends) == 200
    assert [key for key, end in ends.items() if end == "crashed"] == [("killer", "n4=b,n5=b")]
    assert list(ends.values()).count("completed") == 199
    assert result.status == "failed"
    assert result.node_executions == 50 * (4 + 2 + 4) - 1
    row = next(row for row in result.table() if row.combination == "n4=b,n5=b")
    assert (row.crashed, row.completed, row.failed) == (1, 49, 0)
    assert task_states(server, "killed") == {"Completed", "Crashed"}
    assert bench.check_integrity().issues == ()


def test_a_node_that_hangs_costs_its_cell_and_its_worker(
    bench: TestBench, server: PrefectServer
) -> None:
    """The worker is replaced: its other items are complete, and no task run is lost."""
    began = time.monotonic()
    result = bench.batch(
        {"n5": ["original", "b"]},
        cases("hanging", "r", "s", "t"),
        runner="ray",
        batch_id="hangs",
        time_limit=3,
    )
    assert time.monotonic() - began < 60
    ends = {(cell.case_id, cell.combination): cell for cell in result.cells}
    failed = ends.pop(("hanging", "n5=b"))
    assert {cell.status for cell in ends.values()} == {"completed"}
    assert failed.error is not None
    assert (failed.status, failed.error.type) == ("failed", "TimeLimitExceeded")
    assert failed.error.node == "n5"
    assert result.node_executions == 4 * 7
    assert task_states(server, "hangs") == {"Completed"}


def test_threads_run_the_same_flow(bench: TestBench) -> None:
    """Prefect's thread runner instead of Ray."""
    result = bench.batch(MATRIX, cases("x"), runner="threads", batch_id="threads")
    assert result.node_executions == 42
    assert result.best == "n3=a,n4=a,n5=a"


def test_secrets_reach_workers_and_no_store(server: PrefectServer, ray: Any, folder: Path) -> None:
    """Keys of the environment are there in nodes on Ray, whose relative files are their own cell's;
    what nodes print, log and raise is kept without them, everywhere."""
    import ray_leaky_project  # type: ignore[import-not-found]  # written by the fixture

    cases = [{"id": f"c{n}", "state": {"case": f"c{n}"}} for n in range(4)]
    with (
        temporary_settings({PREFECT_API_URL: server.url}),
        TestBench(ray_leaky_project.project) as bench,
    ):
        result = bench.batch({"last": "*"}, cases, runner="ray", batch_id="leaky")
        done = [cell for cell in result.cells if cell.status == "completed"]
        failed = [cell for cell in result.cells if cell.status == "failed"]
        logs = {cell.case_id: bench.logs(str(cell.execution_id)) for cell in failed}
        files = {cell.case_id: list(bench.files(str(cell.execution_id))) for cell in done}
    assert {cell.state["seen"] for cell in done} == {
        f"{len(CANARY)} characters for c{n} 10" for n in range(4)
    }
    assert files == {f"c{n}": ["relative.txt"] for n in range(4)}
    assert {str(cell.error) for cell in failed} == {
        "node 'last': RuntimeError: refused: ***FAKE_API_KEY***"
    }
    for lines in logs.values():
        assert [(line.node, line.text) for line in lines[:2]] == [
            ("first", "printed ***FAKE_API_KEY***"),
            ("first", "client: logged ***FAKE_API_KEY***"),
        ]
        assert lines[-1].text.startswith("Traceback")
    with httpx.Client(base_url=server.url) as client:
        _events(client, "wtb.batch.finished", "leaky", 1)
        told = _warnings(client, "for Prefect: ***FAKE_API_KEY***")
    assert "for Prefect: ***FAKE_API_KEY***" in told
    holders = [file for file in folder.rglob("*") if file.is_file() and _holds(file, CANARY)]
    assert holders == []
    assert any(_holds(file, "***FAKE_API_KEY***") for file in folder.rglob("prefect.db*"))


def _warnings(client: httpx.Client, expected: str) -> set[str]:
    """What was logged as a warning or worse; the server has it within seconds."""
    told: set[str] = set()
    for _ in range(20):
        found = client.post("/logs/filter", json={"logs": {"level": {"ge_": 30}}}).json()
        told = {entry["message"] for entry in found}
        if expected in told:
            break
        time.sleep(1)
    return told


def _holds(file: Path, text: str) -> bool:
    return text.encode() in file.read_bytes()


@pytest.mark.parametrize("guard", ["if __name__ == '__main__':", "if True:"])
def test_a_script_is_its_own_project(
    guard: str, server: PrefectServer, ray: Any, tmp_path: Path
) -> None:
    """Workers import the file again: with the guard it works, without it is refused."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("GUARD", guard))
    env = {
        **os.environ,
        "PREFECT_API_URL": server.url,
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if "__main__" in guard:
        assert ended.stdout == "completed 1\n", ended.stderr
    else:
        assert ended.stdout == ""
        assert f"batch() was called while {tmp_path}/script.py was being imported" in ended.stderr
        assert '`if __name__ == "__main__":`' in ended.stderr


def test_servers_started_here_send_no_telemetry(server: PrefectServer, ray: Any) -> None:
    """Read from the processes themselves (Python ones of Ray write their titles over it)."""
    assert server.pid is not None
    prefect = _environment(server.pid)
    assert (prefect["DO_NOT_TRACK"], prefect["PREFECT_SERVER_ANALYTICS_ENABLED"]) == ("1", "false")
    commands = {pid: _command(pid) for pid in _children(os.getpid())}
    started = [pid for pid, name in commands.items() if name in ("gcs_server", "raylet")]
    assert len(started) == 2
    for pid in started:
        environment = _environment(pid)
        assert (environment["DO_NOT_TRACK"], environment["RAY_USAGE_STATS_ENABLED"]) == ("1", "0")


def _environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def _command(pid: int) -> str:
    return Path(Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]).name


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in found for child in file.read_text().split()]
