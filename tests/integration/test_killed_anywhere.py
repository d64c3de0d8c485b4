"""SIGKILL at random moments, again and again: the same request ends as if nothing had happened."""

from __future__ import annotations

import random
import runpy
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_resume import ended, start

from wtb_prefect import TestBench

KILLS = 15
PARALLEL = 2

PROJECT = '''
import operator, os, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.config import get_config
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject, current_workspace

HERE = Path(__file__).parent
RUN = "RUN"

class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    rounds: Annotated[int, operator.add]
    inside: str

class Inner(TypedDict, total=False):
    seen: Annotated[list, operator.add]
    log: Annotated[list, operator.add]

def called(name):
    """Which run, execution and task of the top graph calls what, before anything else is done."""
    config = get_config()
    task = config["metadata"]["langgraph_checkpoint_ns"].partition(":")[0]
    line = f"{os.environ.get(RUN)} {config['configurable']['thread_id']} {task} {name}\\n"
    file = os.open(HERE / "bodies.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)

def body(node, variant="original", key="log"):
    def work(state):
        note = f"{node}:{variant}:{len(state.get('log', []))}.{len(state.get('seen', []))}"
        called(note)
        folder = current_workspace()
        if node in "abj":  # alone in their super-step: half of what a killed body wrote is undone
            with (folder / "all.txt").open("a") as file:
                file.write(note + "\\n")
        time.sleep(0.01)
        # Beside others a body that is killed may have written before its sibling's files were
        # kept: what it writes has to be the same when it runs again.
        (folder / f"{note.replace(':', '-')}.txt").write_text(note)
        return {key: [note], **({"rounds": 1} if node == "j" else {})}
    return work

def inner():
    builder = StateGraph(Inner)
    for node in "pqr":
        builder.add_node(node, body(node, key="seen"))
    builder.add_edge(START, "p")
    builder.add_edge("p", "q")
    builder.add_edge("q", "r")
    builder.add_node("s", lambda state: {"log": [f"s:{len(state['seen'])}"]})
    builder.add_edge("r", "s")
    return builder.compile()

def build():
    """a -> (m: p -> q -> r -> s | x | y) -> j -> twice more from a -> b"""
    builder = StateGraph(State)
    for node in "axyjb":
        builder.add_node(node, body(node))
    builder.add_node("m", inner())
    builder.add_edge(START, "a")
    for node in "mxy":
        builder.add_edge("a", node)
    builder.add_edge(["m", "x", "y"], "j")
    builder.add_conditional_edges("j", lambda s: "a" if s["rounds"] < 3 else "b", ["a", "b"])
    return builder

project = WorkflowProject("p", build, db_path=HERE / "w.db", output_dir=HERE / "out")
project.variant("x", "v", body("x", "v"))
project.variant("m|q", "v", body("q", "v", "seen"))
project.variant("b", "v", body("b", "v"))

@project.evaluator
def steps(state):
    return len(state["log"])

REQUEST = {
    "matrix": {"x": "*", "m|q": "*", "b": "*"},
    "cases": [{"id": "1", "state": {"log": ["in"]}}],
}

if __name__ == "__main__":
    with TestBench(project) as bench:
        bench.batch(**REQUEST, runner="inline", max_parallel=2)
'''


def written(folder: Path) -> Path:
    """A folder with the project's file."""
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT)
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """The request, run to its end in this process, and all that can be seen of its cells."""
    loaded = runpy.run_path(str(folder / "project.py"))
    seen = {}
    with TestBench(loaded["project"]) as bench:
        bench.batch(**loaded["REQUEST"], runner="inline", max_parallel=PARALLEL)
        result = bench.batch(**loaded["REQUEST"], runner="inline")
        assert result.node_executions == 0
        for cell in result.cells:
            assert cell.execution_id is not None
            blobs = folder / "out" / "blobs" / "objects"
            files = {
                path: (blobs / found.blob_id[:2] / found.blob_id[2:]).read_text()
                for path, found in bench.files(cell.execution_id).items()
            }
            history = [point.nodes for point in bench.history(cell.execution_id)]
            path = [sorted(nodes) for nodes in history if nodes]
            seen[cell.combination] = [cell.status, cell.state, cell.scores, files, path]
    return seen


Call = tuple[str, str, str, str]
"""Which run, execution, task of the top graph, and body."""


def calls(folder: Path) -> list[Call]:
    """Every call of a body, in order."""
    file = folder / "bodies.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(run, thread, task, body) for run, thread, task, body in map(str.split, lines)]


def repeated(made: list[Call]) -> Counter[tuple[str, str, str]]:
    """(run, execution, task of the top graph) -> how many bodies it called that an earlier run
    had called before."""
    known: dict[tuple[str, str, str], str] = {}
    again: Counter[tuple[str, str, str]] = Counter()
    for run, thread, task, body in made:
        first = known.setdefault((thread, task, body), run)
        again[run, thread, task] += first != run
    return again


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path: Path) -> None:
    """State, files, scores and path as undisturbed; each task in flight repeats one body at most.

    A task in flight is a node of the top graph: a mounted graph goes on from its own last step.
    """
    undisturbed = written(tmp_path / "undisturbed")
    expected = outcome(undisturbed)
    size = len(calls(undisturbed))
    chance = random.Random(11)
    kills, number = 0, 0
    while kills < KILLS:
        folder = written(tmp_path / f"killed{number}")
        number += 1
        while kills < KILLS and killed_once(folder, kills, chance):
            kills += 1
        assert outcome(folder) == expected
        again = repeated(calls(folder))
        assert max(again.values()) <= 1, again.most_common(3)
        assert len(calls(folder)) == size + again.total()
    assert number <= KILLS // 2, "too few kills hit a batch at work"


def killed_once(folder: Path, kills: int, chance: random.Random) -> bool:
    """Runs the request until some moment after its first body; False if it came to its end."""
    before = len(calls(folder))
    process = start(folder, RUN=str(kills))
    while process.is_alive() and len(calls(folder)) == before:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.2))
    process.kill()
    return ended(process) == -signal.SIGKILL


def test_repeats_are_counted(tmp_path: Path) -> None:
    """A task that repeats two bodies after one kill would be seen."""
    made = [("0", "t", "m", "p"), ("0", "t", "m", "q"), ("1", "t", "m", "p"), ("1", "t", "m", "q")]
    assert repeated(made).most_common(1) == [(("1", "t", "m"), 2)]
    assert max(repeated([*made[:2], made[3]]).values()) == 1
