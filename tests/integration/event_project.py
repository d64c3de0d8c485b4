"""The project of `test_events`: files, a cache, a retry, a failing case, and signals on demand."""

SOURCE = """
import operator, signal
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph
from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent
tried = set()

class State(TypedDict):
    log: Annotated[list, operator.add]

def index(state):
    (current_workspace() / "index.txt").write_text("index")
    return {"log": ["index"]}

def work(state: State):
    if (HERE / "signal").exists():
        signal.raise_signal(int((HERE / "signal").read_text()))
    if "work" not in tried:
        tried.add("work")
        raise ConnectionResetError("hiccup")
    (current_workspace() / "work.txt").write_text(str(len(state["log"])))
    return {"log": ["work"]}

def last(state: State):
    current_workspace()
    if state["log"][0] == "bad":
        raise ValueError("bad")
    return {"log": ["last"]}

def loud(state: State):
    return last(state)

def build():
    graph = StateGraph(State)
    for node in (index, work, last):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "index")
    graph.add_edge("index", "work")
    graph.add_edge("work", "last")
    graph.add_edge("last", END)
    return graph

def project_of(**options):
    made = WorkflowProject(
        "events", graph=build, db_path=HERE / "w.db", output_dir=HERE / "out",
        workspace=HERE / "base", **options
    )
    made.variant("last", "loud", loud)
    made.cached("index", reads=[])
    return made

project = project_of()
talkative = project_of(step_events=True)
"""
