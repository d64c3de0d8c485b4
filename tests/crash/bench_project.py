"""The project of the crash suite: a line of four nodes that write, change and remove files.

Its folder is the one of the environment: the warm process that loads it is for one folder only.
"""

from __future__ import annotations

import operator
import os
import signal
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(os.environ["WTB_CRASH_FOLDER"])


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def called(name: str) -> None:
    """Which bodies ran, in whatever process."""
    with (HERE / "bodies.txt").open("a") as file:
        file.write(name + "\n")


def a(state: State) -> Any:
    called("a")
    folder = current_workspace()
    for name in ("kept", "changed", "removed"):
        (folder / f"{name}.txt").write_text(f"{name} by a after {len(state['log'])}")
    for number in range(200 if state["log"] == ["many"] else 0):
        (folder / f"{number}.txt").write_text(f"the content of {number}")
    return {"log": ["a"]}


def b(state: State) -> Any:
    called("b")
    folder = current_workspace()
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep/new.txt").write_text(f"b after {len(state['log'])}")
    (folder / "changed.txt").write_text(f"changed by b after {len(state['log'])}")
    return {"log": ["b"]}


def c(state: State) -> Any:
    called("c")
    folder = current_workspace()
    (folder / "removed.txt").unlink(missing_ok=True)
    (folder / "changed.txt").write_text(f"changed by c after {len(state['log'])}")
    (folder / "run.sh").write_text("echo")
    (folder / "run.sh").chmod(0o755)
    (folder / "large.bin").write_bytes(bytes(range(256)) * 300)
    return {"log": ["c"]}


def d(state: State) -> Any:
    called("d")
    folder = current_workspace()
    (folder / "last.txt").write_text(f"d after {len(state['log'])}")
    return {"log": ["d"]}


def build() -> StateGraph[Any]:
    """a -> b -> c -> d"""
    graph = StateGraph(State)
    for name, body in {"a": a, "b": b, "c": c, "d": d}.items():
        graph.add_node(name, body)
    for before, after in zip([START, *"abc"], "abcd", strict=True):
        graph.add_edge(before, after)
    return graph


def body(number: int) -> Any:
    def work(state: State) -> Any:
        called(str(number))
        folder = current_workspace()
        with (folder / "all.txt").open("a") as file:  # half of what a killed body did is undone
            file.write(f"n{number}\n")
        at = HERE / "kill-at"
        if at.exists() and at.read_text() == str(number):
            at.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / f"{number}.txt").write_text(f"n{number} after {len(state['log'])}")
        return {"log": [f"n{number}"]}

    return work


def build_ten() -> StateGraph[Any]:
    """n0 -> n1 -> ... -> n9"""
    graph = StateGraph(State)
    for number in range(10):
        graph.add_node(f"n{number}", body(number))
        graph.add_edge(f"n{number - 1}" if number else START, f"n{number}")
    return graph


project = WorkflowProject("crash", graph=build, db_path=HERE / "w.db", output_dir=HERE / "out")
ten = WorkflowProject("ten", graph=build_ten, db_path=HERE / "w.db", output_dir=HERE / "out")
