"""A project whose executions are controlled by the tests, from this process and from others."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.infrastructure.workflow.graph_source import load_attribute

SOURCE = '''
import operator, os, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent

class State(TypedDict):
    log: Annotated[list, operator.add]
    rounds: int

def called(name):
    with (HERE / "bodies.txt").open("a") as file:
        file.write(name + "\\n")

def wait_at(name):
    """Where the file `hold-<name>` is, until `go` is there."""
    while (HERE / f"hold-{name}").exists() and not (HERE / "go").exists():
        time.sleep(0.01)

def body(name, variant=""):
    def work(state: State):
        called(name + variant)
        wait_at(name)
        folder = current_workspace()
        (folder / f"{name}.txt").write_text(f"{name}{variant} after {len(state['log'])}")
        if name == "c":
            (folder / "a.txt").unlink(missing_ok=True)
            (folder / "run.sh").write_text("echo")
            (folder / "run.sh").chmod(0o755)
        return {"log": [name + variant]}
    return work

def j(state: State):
    called("j")
    return {"log": ["j"], "rounds": state["rounds"] - 1}

def again(state: State):
    return "b" if state["rounds"] > 0 else "sub"

def ask(state: State):
    called("ask")
    return {"log": [f"ask={interrupt('fine?')}"]}

def inner():
    graph = StateGraph(State)
    graph.add_node("p", body("p"))
    graph.add_node("q", body("q"))
    graph.add_edge(START, "p")
    graph.add_edge("p", "q")
    return graph.compile()

def build():
    """a -> b -> (x | y) -> j -> (b again | sub = p -> q) -> c -> d"""
    graph = StateGraph(State)
    for name in "abxycd":
        graph.add_node(name, body(name))
    graph.add_node("j", j)
    graph.add_node("sub", inner())
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    for side in "xy":
        graph.add_edge("b", side)
    graph.add_edge(["x", "y"], "j")
    graph.add_conditional_edges("j", again, ["b", "sub"])
    graph.add_edge("sub", "c")
    graph.add_edge("c", "d")
    return graph

def asking():
    """a -> ask -> d"""
    graph = StateGraph(State)
    graph.add_node("a", body("a"))
    graph.add_node("ask", ask)
    graph.add_node("d", body("d"))
    graph.add_edge(START, "a")
    graph.add_edge("a", "ask")
    graph.add_edge("ask", "d")
    return graph

def project_of(graph):
    where = {"db_path": HERE / "w.db", "output_dir": HERE / "out"}
    made = WorkflowProject("controlled", graph=graph, **where)
    if graph is not None:
        made.variant("d", "loud", body("d", "!"))
    return made

project = project_of(build)
asks = project_of(asking)
bare = project_of(None)
'''

START = {"log": ["in"], "rounds": 1}
"""One round: b, x, y and j run once."""

STRAIGHT = ["in", "a", "b", "x", "y", "j", "in", "a", "b", "x", "y", "j", "p", "q", "c", "d"]
"""The log of an undisturbed run. A subgraph hands back its whole state, which is added to the log
of the graph around it."""


class Place:
    """A folder with the project in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "controlled_project.py"
        self.file.write_text(SOURCE)
        (folder / "bodies.txt").touch()

    def bodies(self) -> list[str]:
        """The bodies called since the last time this was asked, in whatever process."""
        file = self.folder / "bodies.txt"
        found = file.read_text().split()
        file.write_text("")
        return found

    def project(self, name: str = "project") -> WorkflowProject:
        """The project, in this process."""
        found = load_attribute(f"{self.file}:{name}")
        assert isinstance(found, WorkflowProject)
        return found

    def bench(self, name: str = "project") -> TestBench:
        """A bench of it, in this process."""
        return TestBench(self.project(name))

    def hold(self, node: str) -> None:
        """Bodies of the node wait until `let_go`."""
        (self.folder / "go").unlink(missing_ok=True)
        (self.folder / f"hold-{node}").touch()

    def let_go(self) -> None:
        """Those that wait, and those to come, wait no longer."""
        (self.folder / "go").touch()

    def elsewhere(self, code: str, name: str = "project") -> subprocess.Popen[str]:
        """Runs code with `bench` in another process; what it prints last is for the test."""
        given = textwrap.dedent(f"""
            from wtb_prefect import TestBench
            from wtb_prefect.infrastructure.workflow.graph_source import load_attribute
            bench = TestBench(load_attribute({str(self.file)!r} + ":" + {name!r}))
        """)
        return subprocess.Popen(
            [sys.executable, "-c", given + textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for something that another process or thread does."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
