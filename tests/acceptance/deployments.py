"""A folder with a project in it, deployed to a server; how to run and watch what is deployed."""

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


_workers: dict[Path, subprocess.Popen[bytes]] = {}


@contextmanager
def worker(folder: Path, environment: dict[str, str], *, stops: bool = False) -> Iterator[None]:
    """A process worker in a folder, the one of the tests before if there is one: starting it takes
    seconds. `stops`: at the end, with everything it started."""
    if folder not in _workers:
        with (folder / "worker.log").open("w") as log:
            _workers[folder] = subprocess.Popen(
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
        if stops:
            stop_worker(folder)


def stop_worker(folder: Path) -> None:
    """With everything it started; no worker is no error."""
    if (process := _workers.pop(folder, None)) is not None:
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


@contextmanager
def deploy(folder: Path, home: Path) -> Iterator[Deployed]:
    """Everything in `prefect.yaml`, on a server that keeps its database in `home`."""
    shutil.copy(REPOSITORY / "prefect.yaml", folder)
    shutil.copytree(REPOSITORY / "flows", folder / "flows")
    (folder / "bench.py").write_text(PROJECT)
    (folder / "cases.jsonl").write_text(CASES)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_server(home) as server:
        environment = {
            **os.environ,
            "PREFECT_API_URL": server.url,
            "PREFECT_HOME": str(home),
            "PREFECT_WORKER_QUERY_SECONDS": "1",  # it asks for work every 10 s otherwise
        }
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
            try:
                yield Deployed(folder, environment, client, deployment)
            finally:
                stop_worker(folder)


def start_run(deployed: Deployed, **parameters: Any) -> str:
    found = deployed.client.get("/deployments/name/run_workflow/run-workflow").json()
    given = {"project": "bench.py:project", **parameters}
    url = f"/deployments/{found['id']}/create_flow_run"
    return str(deployed.client.post(url, json={"parameters": given}).json()["id"])


def resume(client: httpx.Client, run_id: str, form: dict[str, str]) -> None:
    resumed = client.post(f"/flow_runs/{run_id}/resume", json={"run_input": form})
    assert resumed.json()["status"] == "ACCEPT", resumed.text


def wait_for_state(client: httpx.Client, run_id: str, state: str, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while client.get(f"/flow_runs/{run_id}").json()["state_type"] != state:
        assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-3000:]
        time.sleep(0.5)


def runs(folder: Path, project: str = "project") -> list[dict[str, Any]]:
    """The single executions, newest first."""
    found: list[dict[str, Any]] = wtb(folder, "list", f"bench.py:{project}", "--runs")
    return found


def wtb(folder: Path, *words: str) -> Any:
    done = subprocess.run(
        [WTB, *words, "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def batches(folder: Path, batch_id: str) -> list[str]:
    listed = subprocess.run(
        [WTB, "list", "bench.py:project", "--json"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return [b["status"] for b in json.loads(listed.stdout) if b["batch_id"] == batch_id]


def processes_in(folder: Path, seconds: float) -> int:
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
