"""Nights on which the server dies, or somebody ends the run: whole processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WTB = str(Path(sys.executable).with_name("wtb"))

PROJECT = """
import operator, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import WorkflowProject

HERE = Path(__file__).parent

class State(TypedDict):
    log: Annotated[list[str], operator.add]

def node(name):
    def body(state: State):
        with (HERE / "bodies.txt").open("a") as file:
            file.write(f"{name} {time.time()}\\n")
        time.sleep(0.3)
        return {"log": [name]}
    return body

builder = StateGraph(State)
builder.add_node("a", node("a"))
builder.add_node("b", node("b"))
builder.add_edge(START, "a")
builder.add_edge("a", "b")
project = WorkflowProject("night", builder, db_path=HERE / "w.db", output_dir=HERE / "out")
project.variant("b", "v", node("b-v"))
"""
CASES = 16
BODIES = CASES * 3
RUN = ["project.py:project", "--cases", "cases.jsonl", "--variant", "b=*", "--max-parallel", "4"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project.py").write_text(PROJECT)
    lines = (json.dumps({"id": str(n), "state": {"log": []}}) for n in range(CASES))
    (tmp_path / "cases.jsonl").write_text("\n".join(lines))
    return tmp_path


@contextmanager
def started(folder: Path, runner: str) -> Iterator[subprocess.Popen[bytes]]:
    """`wtb run`, some bodies into its batch."""
    outside = ("PREFECT_API_URL", "RAY_ADDRESS")
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [WTB, "run", *RUN, "--runner", runner],
            cwd=folder,
            env={key: value for key, value in os.environ.items() if key not in outside},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while len(bodies(folder)) < 6:
                assert process.poll() is None, words(folder)
                time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def bodies(folder: Path) -> list[float]:
    """When each node body began."""
    file = folder / "bodies.txt"
    return (
        [float(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []
    )


def words(folder: Path) -> str:
    return (folder / "said.txt").read_text(errors="replace")


def wtb(folder: Path, *arguments: str) -> Any:
    ended = subprocess.run(
        [WTB, *arguments, "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode in (0, 1), ended.stderr
    return json.loads(ended.stdout)


def below(pid: int) -> dict[int, str]:
    """All processes below `pid` and their command lines."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return {child: _command(child) for child in found - {pid}}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def gone(processes: dict[int, str], seconds: float = 20.0) -> list[str]:
    """Waits; gives those that are still the same processes."""
    deadline = time.monotonic() + seconds
    left: list[str] = []
    while time.monotonic() < deadline:
        left = [
            command for pid, command in processes.items() if command and _command(pid) == command
        ]
        if not left:
            break
        time.sleep(0.2)
    return left


@pytest.mark.ray
@pytest.mark.prefect
def test_a_server_that_is_killed_costs_no_result(folder: Path) -> None:
    """The batch goes on without it: complete in the ledger, ended within 60 s, said in one line."""
    with started(folder, "ray") as process:
        processes = below(process.pid)
        [server] = [pid for pid, name in processes.items() if "wtb_prefect.api.server" in name]
        os.kill(server, signal.SIGKILL)
        assert process.wait(200) == 0, words(folder)
        seconds = time.time() - max(bodies(folder))
    said = words(folder)
    assert seconds < 60 + 0.3, said
    assert said.count("was lost") == 1, said
    assert "Traceback" not in said
    [batch] = wtb(folder, "list", "project.py:project")
    assert (batch["status"], batch["cells"]) == ("completed", {"completed": 2 * CASES})
    assert len(bodies(folder)) <= BODIES + 4  # what was in flight may be repeated
    assert gone(processes) == []


@pytest.mark.parametrize(
    "runner",
    ["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.prefect])],
)
def test_sigterm_leaves_one_cancelled_batch_that_goes_on(folder: Path, runner: str) -> None:
    with started(folder, runner) as process:
        processes = below(process.pid)
        process.terminate()
        assert process.wait(60) in (128 + signal.SIGTERM, -signal.SIGTERM), words(folder)
    assert gone(processes) == []
    [batch] = wtb(folder, "list", "project.py:project")
    assert (batch["status"], batch["owner"]) == ("cancelled", None)
    known = len(bodies(folder))
    assert known < BODIES
    report = wtb(folder, "run", *RUN, "--runner", "inline")
    assert (report["status"], report["not_completed"]) == ("completed", [])
    assert BODIES <= len(bodies(folder)) <= BODIES + 8
    assert len(wtb(folder, "list", "project.py:project")) == 1
