"""After a crash: the same request again gives what an undisturbed run gives."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wtb_prefect import TestBench
from wtb_prefect.errors import BatchBusyError

PROJECT = '''
import operator, os, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject, current_workspace

HERE = Path(__file__).parent
BODIES = HERE / "bodies.txt"
KILL = os.environ.get("KILL_AT")  # "node:variant": die in the first call of that body

class State(TypedDict):
    log: Annotated[list, operator.add]

def body(node, variant="original"):
    def work(state: State):
        with BODIES.open("a") as file:
            file.write(f"{node}:{variant}\\n")
        if KILL == f"{node}:{variant}" and not (HERE / "killed").exists():
            (HERE / "killed").touch()
            time.sleep(0.3)  # siblings end, and are recorded
            os.kill(os.getpid(), 9)
        if os.environ.get("SLOW"):
            time.sleep(0.03)
        note = f"{node}:{variant}:{len(state['log'])}"
        folder = current_workspace()
        (folder / f"{node}.txt").write_text(note)
        if node in ("a", "b", "j", "c"):  # alone in their step: appending twice would show
            with (folder / "all.txt").open("a") as file:
                file.write(note + "\\n")
        return {"log": [note]}
    return work

def build():
    """a -> b -> (x | y | s) -> j -> c"""
    builder = StateGraph(State)
    for node in "abxysjc":
        builder.add_node(node, body(node))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    for node in "xys":
        builder.add_edge("b", node)
    builder.add_edge(["x", "y", "s"], "j")
    builder.add_edge("j", "c")
    return builder

project = WorkflowProject("p", build, db_path=HERE / "w.db", output_dir=HERE / "out")
for node in "xyc":
    project.variant(node, "v", body(node, "v"))
REQUEST = {"matrix": dict.fromkeys("xyc", "*"), "cases": [{"id": "1", "state": {"log": ["in"]}}]}

if __name__ == "__main__":
    with TestBench(project) as bench:
        bench.batch(**REQUEST, runner="inline", max_parallel=int(os.environ.get("PARALLEL", "2")))
        report(bench)
'''
REPORT = '''
def report(bench):
    import json
    result = bench.batch(**REQUEST, runner="inline")
    assert result.node_executions == 0
    found = {}
    for cell in result.cells:
        blobs = HERE / "out" / "blobs" / "objects"
        files = bench.files(cell.execution_id)
        texts = {p: (blobs / m.blob_id[:2] / m.blob_id[2:]).read_text() for p, m in files.items()}
        found[cell.combination] = [cell.status, sorted(cell.state["log"]), texts]
    (HERE / "result.json").write_text(json.dumps(found))

'''
TREE = 2 + 1 + 2 + 4 + 4 + 8
"""a b | s x y peeled | j | c: what an undisturbed run calls."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the request gives when nothing happens."""
    folder = written(tmp_path_factory.mktemp("undisturbed"))
    assert start(folder).wait(120) == 0
    assert len(bodies(folder)) == TREE
    return json.loads((folder / "result.json").read_text())


def written(folder: Path) -> Path:
    """A folder with the project's file."""
    head, main = PROJECT.split('if __name__ == "__main__":')
    (folder / "project.py").write_text(f'{head}{REPORT}if __name__ == "__main__":{main}')
    return folder


def start(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "project.py"],
        cwd=folder,
        env={**os.environ, **environment},
        stderr=(folder / "stderr.txt").open("wb") if "KILL_AT" not in environment else None,
    )


def bodies(folder: Path) -> list[str]:
    file = folder / "bodies.txt"
    return file.read_text().split() if file.exists() else []


def outcome(folder: Path) -> dict[str, Any]:
    """Runs the request to its end and reads what it gave."""
    assert start(folder).wait(120) == 0, (folder / "stderr.txt").read_text()
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("where", ["a:original", "b:original", "x:v", "y:v", "j:original", "c:v"])
def test_killed_inside_a_node_goes_on_from_its_last_record(
    tmp_path: Path, undisturbed: dict[str, Any], where: str
) -> None:
    """Results and files equal; with one stretch at a time only the killed body is repeated."""
    folder = written(tmp_path)
    assert start(folder, KILL_AT=where, PARALLEL="1").wait(120) == -signal.SIGKILL
    assert outcome(folder) == undisturbed
    assert len(bodies(folder)) == TREE + 1


def test_killed_in_a_fork_whose_siblings_are_recorded(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """A fork child that recorded pending writes at its fork point keeps them, and its parent's."""
    folder = written(tmp_path)
    # x:v runs beside the gate of y in a child of the first split; s came with the copy.
    assert start(folder, KILL_AT="y:v", PARALLEL="1").wait(120) == -signal.SIGKILL
    before = bodies(folder)
    assert outcome(folder) == undisturbed
    after = bodies(folder)[len(before):]
    assert "s:original" not in after
    assert before.count("s:original") == 1


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """From outside, again and again; each kill repeats at most the bodies in flight."""
    folder = written(tmp_path)
    chance = random.Random(7)
    kills = 0
    for _ in range(4):
        process = start(folder, SLOW="1")
        known = len(bodies(folder))
        while process.poll() is None and len(bodies(folder)) < min(known + 2, TREE):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert outcome(folder) == undisturbed
    in_flight = 2 * 3  # two stretches of at most three nodes in a step
    assert len(bodies(folder)) <= TREE + kills * in_flight


def test_checkpoints_ahead_of_the_ledger_converge(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """As if power failed between checkpoint and ledger: the ledger decides, the store is rewound."""
    folder = written(tmp_path)
    outcome(folder)
    with sqlite3.connect(folder / "w.db") as ledger:
        rows = ledger.execute(
            "SELECT execution_id FROM executions WHERE kind = 'cell' ORDER BY execution_id"
        ).fetchall()
        for (execution_id,) in rows:
            forget_last_step(ledger, execution_id)
        ledger.execute("UPDATE cells SET status = 'pending', execution_id = NULL")
    ledger.close()
    known = len(bodies(folder))
    assert outcome(folder) == undisturbed
    assert sorted(bodies(folder)[known:]) == sorted(["c:original", "c:v"] * 4)


def forget_last_step(ledger: sqlite3.Connection, execution_id: str) -> None:
    """Takes an execution's last transactions (super-step and end) out of the ledger."""
    one = (execution_id,)
    links = ledger.execute(
        "SELECT checkpoint_id, commit_id, step, sequence FROM checkpoint_files "
        "WHERE execution_id = ? ORDER BY sequence",
        one,
    ).fetchall()
    (last, _, _, sequence), (head, commit, step, _) = links[-1], links[-2]
    ledger.execute(
        "DELETE FROM checkpoint_files WHERE execution_id = ? AND sequence = ?",
        (execution_id, sequence),
    )
    ledger.execute(
        "DELETE FROM node_boundaries WHERE execution_id = ? AND exit_checkpoint_id = ?",
        (execution_id, last),
    )
    ledger.execute(
        "UPDATE executions SET status = 'running', head = ?, commit_id = ?, step = ?, "
        "finished_at = NULL WHERE execution_id = ?",
        (head, commit, step, execution_id),
    )


def test_second_run_of_a_batch_is_refused(tmp_path: Path) -> None:
    """It names the pid and host of the owner, and the owner is not disturbed."""
    folder = written(tmp_path)
    owner = start(folder, SLOW="1")
    try:
        while not bodies(folder):
            assert owner.poll() is None
            time.sleep(0.01)
        source = (
            "import project\nfrom wtb_prefect import TestBench\n"
            "with TestBench(project.project) as bench:\n"
            "    bench.batch(**project.REQUEST, runner='inline')\n"
        )
        second = subprocess.run(
            [sys.executable, "-c", source],
            cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        )
        early = owner.poll() is None
    finally:
        owner.wait(120)
    assert early, "the owner ended before the second began: make it slower"
    assert BatchBusyError.__name__ in second.stderr
    assert f"process {owner.pid} on {socket.gethostname()}" in second.stderr
    assert owner.returncode == 0
    assert TestBench.__test__ is False
