"""After a crash: the same request again gives what an undisturbed run gives."""

from __future__ import annotations

import multiprocessing
import os
import random
import runpy
import signal
import socket
import sqlite3
import time
from multiprocessing.process import BaseProcess
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
# KILL_AT is "node:variant": die in the first call of that body. Read inside, because a constant
# that a node names is part of its code, and other code would not be resumed.

class State(TypedDict):
    log: Annotated[list, operator.add]

def body(node, variant="original"):
    def work(state: State):
        with BODIES.open("a") as file:
            file.write(f"{node}:{variant}\\n")
        if os.environ.get("KILL_AT") == f"{node}:{variant}" and not (HERE / "killed").exists():
            (HERE / "killed").touch()
            time.sleep(0.3)  # siblings end, and are recorded
            os.kill(os.getpid(), 9)
        if os.environ.get("SLOW"):
            time.sleep(0.03)
        while os.environ.get("HOLD") and not (HERE / "go").exists():
            time.sleep(0.01)
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
REQUEST = {"matrix": MATRIX, "cases": [{"id": "1", "state": {"log": ["in"]}}]}

if __name__ == "__main__":
    with TestBench(project) as bench:
        bench.batch(**REQUEST, runner="inline", max_parallel=int(os.environ.get("PARALLEL", "2")))
'''
TREE = 2 + 1 + 2 + 4 + 4 + 8
"""a b | s x y peeled | j | c: what an undisturbed run calls."""

# Forked from a server that has everything imported: a new interpreter costs seconds.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["wtb_prefect.sdk.test_bench", "pytest"])


def run_request(folder: str, environment: dict[str, str]) -> None:
    """What the processes of these tests do: the request, with whatever happens to it."""
    os.environ.update(environment)
    runpy.run_path(f"{folder}/project.py", run_name="__main__")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the request gives when nothing happens."""
    folder = written(tmp_path_factory.mktemp("undisturbed"))
    found = outcome(folder)
    assert len(bodies(folder)) == TREE
    return found


def written(folder: Path, matrix: str = '{"x": "*", "y": "*", "c": "*"}') -> Path:
    """A folder with the project's file."""
    folder.mkdir(exist_ok=True)
    (folder / "project.py").write_text(PROJECT.replace("MATRIX", matrix))
    return folder


def start(folder: Path, **environment: str) -> BaseProcess:
    # The fork server has the environment of when it was started.
    given = {name: os.environ[name] for name in ("WTB_DATABASE_URL",) if name in os.environ}
    process = SPAWN.Process(target=run_request, args=(str(folder), {**given, **environment}))
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    """Waits for a process and gives its exit code (a signal as a negative number)."""
    process.join(120)
    code = process.exitcode
    process.close()
    return code


def bodies(folder: Path) -> list[str]:
    file = folder / "bodies.txt"
    return file.read_text().split() if file.exists() else []


def outcome(folder: Path) -> dict[str, Any]:
    """The request, run to its end in this process, and all that can be seen of its cells."""
    seen = {}
    loaded = runpy.run_path(str(folder / "project.py"))
    with TestBench(loaded["project"]) as bench:
        bench.batch(**loaded["REQUEST"], runner="inline", max_parallel=2)
        result = bench.batch(**loaded["REQUEST"], runner="inline")
        assert result.node_executions == 0
        for cell in result.cells:
            blobs = folder / "out" / "blobs" / "objects"
            files = bench.files(cell.execution_id)
            texts = {
                path: (blobs / found.blob_id[:2] / found.blob_id[2:]).read_text()
                for path, found in files.items()
            }
            seen[cell.combination] = [cell.status, sorted(cell.state["log"]), texts]
    return seen


@pytest.mark.parametrize("where", ["a:original", "b:original", "x:v", "y:v", "j:original", "c:v"])
def test_killed_inside_a_node_goes_on_from_its_last_record(
    tmp_path: Path, undisturbed: dict[str, Any], where: str
) -> None:
    """Results and files equal; with one stretch at a time only the killed body is repeated."""
    folder = written(tmp_path)
    assert ended(start(folder, KILL_AT=where, PARALLEL="1")) == -signal.SIGKILL
    assert outcome(folder) == undisturbed
    assert len(bodies(folder)) == TREE + 1


def test_killed_in_a_fork_whose_siblings_are_recorded(tmp_path: Path) -> None:
    """A child at its fork point keeps its own pending writes, and those that came with the copy."""
    pairs = '[{"x": "v", "y": "v"}, {}]'  # x and y run side by side in each child; s in the trunk
    plain, folder = written(tmp_path / "plain", pairs), written(tmp_path / "killed", pairs)
    assert ended(start(folder, KILL_AT="y:v", PARALLEL="1")) == -signal.SIGKILL
    assert bodies(folder).count("x:v") == 1
    assert outcome(folder) == outcome(plain)
    assert sorted(bodies(folder)) == sorted([*bodies(plain), "y:v"])


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    """From outside, again and again; each kill repeats at most the bodies in flight."""
    folder = written(tmp_path)
    chance = random.Random(7)
    kills = 0
    for _ in range(4):
        process = start(folder, SLOW="1")
        known = len(bodies(folder))
        while process.is_alive() and len(bodies(folder)) < min(known + 2, TREE):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        kills += ended(process) == -signal.SIGKILL
    assert outcome(folder) == undisturbed
    in_flight = 2 * 3  # two stretches of at most three nodes in a step
    assert len(bodies(folder)) <= TREE + kills * in_flight


def test_checkpoints_ahead_of_the_ledger_converge(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """As if power failed between the two: the ledger decides, the store is rewound."""
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
    owner = start(folder, HOLD="1")
    pid = owner.pid
    while not bodies(folder):
        assert owner.is_alive()
        time.sleep(0.01)
    with pytest.raises(BatchBusyError, match=f"process {pid} on {socket.gethostname()}"):
        outcome(folder)
    (folder / "go").touch()
    assert ended(owner) == 0
    assert len(bodies(folder)) == TREE


DELTA = """
import os
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject, current_workspace

HERE = Path(__file__).parent
save = SqliteSaver.put

class State(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(lambda old, new: old + [x for w in new for x in w])]

def a(state: State):
    (current_workspace() / "a.txt").write_text("by a")
    return {"log": ["a"]}

def b(state: State):
    return {"log": [(current_workspace() / "a.txt").read_text()]}

def build():
    builder = StateGraph(State)
    builder.add_node("a", a)
    builder.add_node("b", b)
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    return builder

project = WorkflowProject("p", build, db_path=HERE / "w.db", output_dir=HERE / "out")
REQUEST = {"cases": [{"id": "1", "state": {"log": ["in"]}}]}

def put(self, config, checkpoint, metadata, versions):
    if metadata["step"] == 1:
        os.kill(os.getpid(), 9)
    return save(self, config, checkpoint, metadata, versions)

if __name__ == "__main__":
    SqliteSaver.put = put
    with TestBench(project) as bench:
        bench.batch(**REQUEST, runner="inline")
"""


def test_kept_writes_of_a_delta_channel_come_with_their_files(tmp_path: Path) -> None:
    """Killed between the writes of a node that runs alone and the checkpoint after them."""
    (tmp_path / "project.py").write_text(DELTA)
    assert ended(start(tmp_path)) == -signal.SIGKILL
    loaded = runpy.run_path(str(tmp_path / "project.py"))
    with TestBench(loaded["project"]) as bench:
        result = bench.batch(**loaded["REQUEST"], runner="inline")
        (cell,) = result.cells
        assert cell.state["log"] == ["in", "a", "by a"]
        assert list(bench.files(str(cell.execution_id))) == ["a.txt"]
    assert result.node_executions == 1
