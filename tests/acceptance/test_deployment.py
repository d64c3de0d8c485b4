"""What a team does: deploy the batch test, trigger it through the API, find it in the ledger."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from wtb_prefect.api.server import prefect_server

REPOSITORY = Path(__file__).parent.parent.parent
PREFECT = str(Path(sys.executable).with_name("prefect"))
WTB = str(Path(sys.executable).with_name("wtb"))

PROJECT = """
import operator, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from wtb_prefect import WorkflowProject, current_workspace

class State(TypedDict):
    log: Annotated[list[str], operator.add]

def first(state: State):
    with Path("bodies.txt").open("a") as file:
        file.write("first\\n")
    while Path("hold").exists():
        time.sleep(0.1)
    (current_workspace() / "first.txt").write_text("first")
    return {"log": ["first"]}

def second(state: State):
    return {"log": ["second"]}

def build():
    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    return builder

def ask(state: State):
    return {"log": [interrupt("Which colour?"), interrupt("Are you sure?")]}

def asking():
    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("ask", ask)
    builder.add_edge(START, "first")
    builder.add_edge("first", "ask")
    return builder

project = WorkflowProject("deployed", build, db_path="wtb.db", output_dir="outputs")
asks = WorkflowProject("asks", asking, db_path="wtb.db", output_dir="outputs")

@project.variant("second", "other")
def other(state: State):
    return {"log": ["other"]}

@project.evaluator(primary=True)
def is_other(state, expected) -> bool:
    return state["log"][-1] == expected
"""
CASES = "".join(
    f'{{"id": "{name}", "state": {{"log": []}}, "expected": "other"}}\n' for name in "ab"
)

pytestmark = [pytest.mark.prefect, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]


@contextmanager
def worker(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A process worker in a folder, stopped with everything it started."""
    with (folder / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", "wtb"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def wait_for_end(client: httpx.Client, flow_run_id: str, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run: dict[str, Any] = client.get(f"/flow_runs/{flow_run_id}").json()
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        time.sleep(1)
    raise AssertionError(f"the flow run did not end: {run['state']}")


@dataclass(frozen=True)
class Deployed:
    """A folder with a project, deployed to a server."""

    folder: Path
    environment: dict[str, str]
    client: httpx.Client
    deployment: dict[str, Any]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder, home = tmp_path_factory.mktemp("bench"), tmp_path_factory.mktemp("prefect")
    shutil.copy(REPOSITORY / "prefect.yaml", folder)
    shutil.copytree(REPOSITORY / "flows", folder / "flows")
    (folder / "bench.py").write_text(PROJECT)
    (folder / "cases.jsonl").write_text(CASES)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_server(home) as server:
        environment = {**os.environ, "PREFECT_API_URL": server.url, "PREFECT_HOME": str(home)}
        for command in (
            ["work-pool", "create", "wtb", "--type", "process"],
            ["--no-prompt", "deploy", "--all"],
        ):
            subprocess.run(
                [PREFECT, *command],
                cwd=folder,
                env=environment,
                check=True,
                capture_output=True,
                timeout=120,
            )
        with httpx.Client(base_url=server.url) as client:
            deployment = client.get("/deployments/name/batch_test/batch-test").json()
            yield Deployed(folder, environment, client, deployment)


def test_the_form_keeps_its_bounds_and_refuses_what_is_outside(deployed: Deployed) -> None:
    """repeats=0 makes no flow run."""
    bounds = deployed.deployment["parameter_openapi_schema"]["properties"]["repeats"]
    answer = deployed.client.post(
        f"/deployments/{deployed.deployment['id']}/create_flow_run",
        json={"parameters": {"project": "bench.py:project", "repeats": 0}},
    )
    assert (bounds["minimum"], bounds["maximum"]) == (1, 1000)
    assert answer.status_code == 409
    assert "repeats" in answer.text
    ours = {"deployments": {"id": {"any_": [deployed.deployment["id"]]}}}
    assert deployed.client.post("/flow_runs/count", json=ours).json() == 0


def test_garbage_is_collected_every_week(deployed: Deployed) -> None:
    found = deployed.client.get("/deployments/name/collect_garbage/collect-garbage").json()
    (schedule,) = found["schedules"]
    assert (schedule["active"], schedule["schedule"]["cron"]) == (True, "0 3 * * 0")
    assert found["parameter_openapi_schema"]["properties"]["grace_hours"]["minimum"] == 0
    assert found["parameters"] == {"project": "bench.py:project"}


def test_a_batch_is_triggered_through_the_api_and_ends_in_the_ledger(deployed: Deployed) -> None:
    """Triggered twice with one idempotency key: one run, with its artifacts, in the ledger."""
    request = {
        "parameters": {
            "project": "bench.py:project",
            "cases": "cases.jsonl",
            "matrix": {"second": "*"},
            "batch_id": "nightly-1",
        },
        "idempotency_key": "nightly-1",
    }
    url = f"/deployments/{deployed.deployment['id']}/create_flow_run"
    with worker(deployed.folder, deployed.environment):
        started, again = (deployed.client.post(url, json=request).json() for _ in range(2))
        run = wait_for_end(deployed.client, started["id"], 220)
    artifacts = deployed.client.post("/artifacts/filter", json={}).json()
    assert run["state_type"] == "COMPLETED", (deployed.folder / "worker.log").read_text()[-3000:]
    assert again["id"] == started["id"]
    assert {"wtb-batch-nightly-1", "wtb-progress-nightly-1"} <= {a["key"] for a in artifacts}
    summary = next(a["data"] for a in artifacts if a["key"] == "wtb-batch-nightly-1")
    assert "second=other" in summary
    assert "```mermaid" in summary
    results = subprocess.run(
        [WTB, "results", "bench.py:project", "nightly-1", "--json"],
        cwd=deployed.folder,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(results.stdout)["best"] == "second=other"


def test_a_cancelled_flow_run_is_one_cancelled_batch_that_goes_on(deployed: Deployed) -> None:
    """Cancelled through the API: no process is left, no task run Running; triggered again with the
    same parameters it is complete."""
    folder, client = deployed.folder, deployed.client
    parameters = {
        "project": "bench.py:project",
        "cases": "cases.jsonl",
        "matrix": {"second": "*"},
        "batch_id": "stopped",
        "options": {"retries": 1},
    }
    url = f"/deployments/{deployed.deployment['id']}/create_flow_run"
    bodies = folder / "bodies.txt"
    bodies.unlink(missing_ok=True)
    (folder / "hold").touch()
    with worker(folder, deployed.environment):
        run = client.post(url, json={"parameters": parameters}).json()
        deadline = time.monotonic() + 120
        while not bodies.exists():
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-3000:]
            time.sleep(0.2)
        time.sleep(1)  # the Running events leave the workers
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        client.post(f"/flow_runs/{run['id']}/set_state", json=cancelling)
        ended = wait_for_end(client, run["id"], 90)
        assert ended["state_type"] == "CANCELLED", (folder / "worker.log").read_text()[-3000:]
        assert _processes_in(folder, 30) == 1  # the worker itself
        tasks = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        for _ in range(60):
            states = {
                task["state_type"] for task in client.post("/task_runs/filter", json=tasks).json()
            }
            if not states & {"RUNNING", "PENDING"}:
                break
            time.sleep(1)
        assert states == {"CRASHED"}
        assert _batches(folder, "stopped") == ["cancelled"]
        (folder / "hold").unlink()
        again = client.post(url, json={"parameters": parameters}).json()
        assert wait_for_end(client, again["id"], 150)["state_type"] == "COMPLETED"
    assert _batches(folder, "stopped") == ["completed"]


def test_a_run_is_suspended_where_it_holds_and_goes_on_in_a_new_process(deployed: Deployed) -> None:
    """At a breakpoint, with a change of the state made in the form."""
    folder, client = deployed.folder, deployed.client
    bodies = folder / "bodies.txt"
    bodies.unlink(missing_ok=True)
    found = client.get("/deployments/name/run_workflow/run-workflow").json()
    parameters = {
        "project": "bench.py:project",
        "state": {"log": []},
        "variants": {"second": "other"},
        "breakpoints": ["second"],
    }
    url = f"/deployments/{found['id']}/create_flow_run"
    with worker(folder, deployed.environment):
        run = client.post(url, json={"parameters": parameters}).json()
        _wait_for_state(client, run["id"], "PAUSED", folder)
        (held,) = _runs(folder)
        assert (held["status"], held["next_nodes"]) == ("paused", ["second"])
        form = {"update": '{"log": ["by hand"]}', "answer": ""}
        resumed = client.post(f"/flow_runs/{run['id']}/resume", json={"run_input": form})
        assert resumed.json()["status"] == "ACCEPT", resumed.text
        ended = wait_for_end(client, run["id"], 90)
    assert ended["state_type"] == "COMPLETED", (folder / "worker.log").read_text()[-3000:]
    (done,) = _runs(folder)
    assert (done["execution_id"], done["status"]) == (held["execution_id"], "completed")
    state = _wtb(folder, "state", "bench.py:project", done["execution_id"])
    assert state["values"] == {"log": ["first", "by hand", "other"]}
    assert bodies.read_text() == "first\n"


def test_a_cancelled_run_is_one_cancelled_execution(deployed: Deployed) -> None:
    folder, client = deployed.folder, deployed.client
    bodies = folder / "bodies.txt"
    bodies.unlink(missing_ok=True)
    (folder / "hold").touch()
    found = client.get("/deployments/name/run_workflow/run-workflow").json()
    parameters = {"project": "bench.py:project", "state": {"log": []}}
    url = f"/deployments/{found['id']}/create_flow_run"
    with worker(folder, deployed.environment):
        run = client.post(url, json={"parameters": parameters}).json()
        deadline = time.monotonic() + 90
        while not bodies.exists():
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-3000:]
            time.sleep(0.2)
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        client.post(f"/flow_runs/{run['id']}/set_state", json=cancelling)
        ended = wait_for_end(client, run["id"], 90)
        (folder / "hold").unlink()
    assert ended["state_type"] == "CANCELLED", (folder / "worker.log").read_text()[-3000:]
    newest = _runs(folder)[0]
    assert newest["status"] == "cancelled"


def test_questions_are_answered_in_the_form(deployed: Deployed) -> None:
    """Two of one node, at one checkpoint; what cannot be taken is asked for again."""
    folder, client = deployed.folder, deployed.client
    with worker(folder, deployed.environment):
        run_id = _start_run(deployed, project="bench.py:asks", state={"log": []})
        for form, asked in (
            ({"update": "not JSON", "answer": ""}, "Which colour?"),
            ({"update": '{"colour": 1}', "answer": ""}, "not JSON"),
            ({"update": "", "answer": "green"}, "Which colour?"),
            ({"update": "", "answer": "true"}, "Are you sure?"),
        ):
            _wait_for_state(client, run_id, "PAUSED", folder)
            state = client.get(f"/flow_runs/{run_id}").json()["state"]
            keys = state["state_details"]["run_input_keyset"]
            said = client.get(f"/flow_runs/{run_id}/input/{keys['description']}").text
            assert asked in said
            _resume(client, run_id, form)
        ended = wait_for_end(client, run_id, 90)
    assert ended["state_type"] == "COMPLETED", (folder / "worker.log").read_text()[-3000:]
    (done,) = _runs(folder, "asks")
    state = _wtb(folder, "state", "bench.py:asks", done["execution_id"])
    assert state["values"] == {"log": ["first", "green", True]}


def test_a_run_cancelled_while_it_is_suspended_is_one_cancelled_execution(
    deployed: Deployed,
) -> None:
    """By the deployment that Prefect starts at every cancelled run."""
    folder, client = deployed.folder, deployed.client
    with worker(folder, deployed.environment):
        run_id = _start_run(deployed, state={"log": []}, breakpoints=["second"])
        _wait_for_state(client, run_id, "PAUSED", folder)
        held = _runs(folder)[0]
        assert held["status"] == "paused"
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        client.post(f"/flow_runs/{run_id}/set_state", json=cancelling)
        assert wait_for_end(client, run_id, 30)["state_type"] == "CANCELLED"
        deadline = time.monotonic() + 90
        while (now := _runs(folder)[0])["status"] != "cancelled":
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-3000:]
            time.sleep(1)
    assert now["execution_id"] == held["execution_id"]


def test_a_run_whose_worker_stops_goes_on_when_it_is_tried_again(deployed: Deployed) -> None:
    folder, client = deployed.folder, deployed.client
    bodies = folder / "bodies.txt"
    bodies.unlink(missing_ok=True)
    (folder / "hold").touch()
    with worker(folder, deployed.environment):
        run_id = _start_run(deployed, state={"log": []})
        deadline = time.monotonic() + 90
        while not bodies.exists():
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-3000:]
            time.sleep(0.2)
    (folder / "hold").unlink()
    left = _runs(folder)[0]
    assert left["status"] in ("paused", "running")  # never cancelled: nobody asked for that
    with worker(folder, deployed.environment):
        again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        client.post(f"/flow_runs/{run_id}/set_state", json=again)
        _wait_for_state(client, run_id, "RUNNING", folder)
        ended = wait_for_end(client, run_id, 90)
    assert ended["state_type"] == "COMPLETED", (folder / "worker.log").read_text()[-3000:]
    assert (_runs(folder)[0]["execution_id"], _runs(folder)[0]["status"]) == (
        left["execution_id"],
        "completed",
    )


def _start_run(deployed: Deployed, **parameters: Any) -> str:
    found = deployed.client.get("/deployments/name/run_workflow/run-workflow").json()
    given = {"project": "bench.py:project", **parameters}
    url = f"/deployments/{found['id']}/create_flow_run"
    return str(deployed.client.post(url, json={"parameters": given}).json()["id"])


def _resume(client: httpx.Client, run_id: str, form: dict[str, str]) -> None:
    resumed = client.post(f"/flow_runs/{run_id}/resume", json={"run_input": form})
    assert resumed.json()["status"] == "ACCEPT", resumed.text


def _wait_for_state(client: httpx.Client, run_id: str, state: str, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while client.get(f"/flow_runs/{run_id}").json()["state_type"] != state:
        assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-3000:]
        time.sleep(0.5)


def _runs(folder: Path, project: str = "project") -> list[dict[str, Any]]:
    """The single executions, newest first."""
    found: list[dict[str, Any]] = _wtb(folder, "list", f"bench.py:{project}", "--runs")
    return found


def _wtb(folder: Path, *words: str) -> Any:
    done = subprocess.run(
        [WTB, *words, "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def _batches(folder: Path, batch_id: str) -> list[str]:
    listed = subprocess.run(
        [WTB, "list", "bench.py:project", "--json"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return [b["status"] for b in json.loads(listed.stdout) if b["batch_id"] == batch_id]


def _processes_in(folder: Path, seconds: float) -> int:
    """How many processes work in a folder, when only one is left or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        found = 0
        for entry in Path("/proc").glob("[0-9]*/cwd"):
            try:
                found += entry.readlink() == folder
            except OSError:
                continue
        if found <= 1 or time.monotonic() > deadline:
            return found
        time.sleep(0.5)
