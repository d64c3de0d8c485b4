"""Going on from the past with LangGraph's other features, and after a kill."""

from __future__ import annotations

import multiprocessing
import operator
import os
import runpy
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import DeltaChannel
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import interrupt

from wtb_prefect import TestBench, WorkflowProject, current_workspace

CALLS: list[str] = []


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    value: Any


def node(name: str, edit: int = 0) -> Callable[[Any], dict[str, Any]]:
    """Appends to the state and to a file."""

    def body(state: Any) -> dict[str, Any]:
        CALLS.append(name)
        note = f"{name}/{edit}/{len(state.get('log', []))}"
        with (current_workspace() / "all.txt").open("a") as file:
            file.write(f"{note}\n")
        return {"log": [note]}

    return body


def line(*nodes: tuple[str, Any], schema: Any = State) -> StateGraph:
    """Nodes one after the other."""
    builder = StateGraph(schema)
    before = START
    for name, code in nodes:
        builder.add_node(name, code)
        builder.add_edge(before, name)
        before = name
    return builder


def run(
    folder: Path, graph: Any, variants: Mapping[tuple[str, str], Any] | None = None, **case: Any
) -> tuple[list[str], dict[str, Any]]:
    """The bodies a request calls, in order, and what can be seen of its cells."""
    project = WorkflowProject("p", graph, db_path=folder / "w.db", output_dir=folder / "out")
    for (name, variant), code in (variants or {}).items():
        project.variant(name, variant, code)
    matrix = {name: "*" for name, _ in variants or {}}
    CALLS.clear()
    with TestBench(project) as bench:
        result = bench.batch(
            matrix, [{"id": "c", "state": {"log": ["in"]}, **case}], runner="inline"
        )
        calls = list(CALLS)
        seen = {}
        for cell in result.cells:
            files = bench.files(cell.execution_id or "")
            hashes = {path: memento.blob_id for path, memento in files.items()}
            steps = [p.nodes for p in bench.history(cell.execution_id or "") if p.nodes]
            own = cell.result.node_executions
            seen[cell.combination] = (cell.status, dict(cell.state), hashes, steps, own)
    return calls, seen


def again(tmp_path: Path, first: Any, edited: Any, variants: Any = None, **case: Any) -> list[str]:
    """The bodies of the second run, whose results are those of an empty ledger."""
    run(tmp_path / "kept", first, *(variants[:1] if variants else ()), **case)
    code = variants[1:] if variants else ()
    calls, seen = run(tmp_path / "kept", edited, *code, **case)
    _, scratch = run(tmp_path / "scratch", edited, *code, **case)
    assert seen == scratch
    return calls


def mounted(edit: int = 0, last: int = 0, memory: bool | None = None) -> StateGraph:
    """x -> sub(a -> b) -> y, the last two once more."""
    inner = line(("a", node("a")), ("b", node("b", edit)))
    builder = line(
        ("x", node("x")), ("sub", inner.compile(checkpointer=memory)), ("y", node("y", last))
    )

    def route(state: State) -> str:
        return "sub" if sum(note.startswith("y") for note in state["log"]) < 2 else END

    builder.add_conditional_edges("y", route, ["sub", END])
    return builder


@pytest.mark.parametrize("memory", [None, True])
def test_subgraphs_and_their_memories(tmp_path: Path, memory: bool | None) -> None:
    """A mounted node is gone on from as a whole; a memory stands where it stood."""
    first = mounted(memory=memory)
    assert again(tmp_path / "last", first, mounted(last=1, memory=memory)) == list("yaby")
    assert again(tmp_path / "inner", first, mounted(edit=1, memory=memory)) == list("abyaby")


def test_a_variant_inside_a_subgraph(tmp_path: Path) -> None:
    """The trunk stopped inside: what ran before its gate, inside too, is not run again."""
    old, new = ({("sub|b", "v"): node("bv", edit)} for edit in (0, 1))
    calls = again(tmp_path / "v", mounted(), mounted(), (old, new))
    assert calls == ["bv", "y", "a", "bv", "y"]
    calls = again(tmp_path / "y", mounted(), mounted(last=1), (old, old))
    assert sorted(calls) == sorted(["y", "a", "b", "y", "y", "a", "bv", "y"])


def test_a_store_is_what_it_was(tmp_path: Path) -> None:
    """With what ran before put there, and nothing of what followed in the earlier run."""

    def stored(name: str, edit: int = 0) -> Callable[..., dict[str, Any]]:
        def body(state: State, *, store: BaseStore) -> dict[str, Any]:
            CALLS.append(name)
            notes = sorted(item.value["note"] for item in store.search(("notes",)))
            store.put(("notes",), f"{name}{edit}", {"note": f"{name}{edit}"})
            return {"log": [f"{name}{edit}: {' '.join(notes)}"]}

        return body

    def graph(edit: int) -> Any:
        nodes = [(n, stored(n, edit if n == "y" else 0)) for n in "xyz"]
        return line(*nodes).compile(store=InMemoryStore())

    assert again(tmp_path, graph(0), graph(1)) == ["y", "z"]


class Deltas(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(lambda old, new: old + [x for w in new for x in w])]


def test_a_history_of_writes(tmp_path: Path) -> None:
    """The copy holds the whole value as of that checkpoint."""

    def graph(edit: int) -> StateGraph:
        nodes = [(n, node(n, edit if n == "z" else 0)) for n in "xyz"]
        return line(*nodes, schema=Deltas)

    assert again(tmp_path, graph(0), graph(1)) == ["z"]


def asking(edit: int) -> StateGraph:
    def asks(state: State) -> dict[str, Any]:
        CALLS.append("asks")
        return {"log": [f"{interrupt('one')} {interrupt('two')}"]}

    return line(("x", node("x")), ("asks", asks), ("y", node("y", edit)))


def test_answers_given_before_are_kept_while_they_are_the_same(tmp_path: Path) -> None:
    """The list goes on where it stood; other answers are other questions."""
    assert again(tmp_path, asking(0), asking(1), answers=["a", "b"]) == ["y"]
    calls, seen = run(tmp_path / "kept", asking(1), answers=["a", "c"])
    assert calls == ["asks"] * 3 + ["y"]
    assert seen["baseline"][1]["log"][2] == "a c"


def test_a_paused_cell_goes_on_when_it_has_an_answer(tmp_path: Path) -> None:
    """What ran before the question is not run again."""
    run(tmp_path, asking(0))
    calls, seen = run(tmp_path, asking(0), answers=["a", "b"])
    assert calls == ["asks"] * 3 + ["y"]
    assert seen["baseline"][:2][0] == "completed"


def lossy(edit: int) -> StateGraph:
    """a writes a tuple, which comes back as a list; c tells what it sees."""

    def writes(state: State) -> dict[str, Any]:
        CALLS.append("a")
        return {"value": (1, 2)}

    def tells(state: State) -> dict[str, Any]:
        CALLS.append("c")
        return {"log": [f"{type(state['value']).__name__} {edit}"]}

    return line(("x", node("x")), ("a", writes), ("b", node("b")), ("c", tells))


def test_values_that_come_back_as_others_end_what_can_be_kept(tmp_path: Path) -> None:
    """Also where a later step did not touch them."""
    assert again(tmp_path, lossy(0), lossy(1)) == ["a", "b", "c"]


class Hidden(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    hidden: Annotated[Any, UntrackedValue(Any)]


def test_what_no_checkpoint_holds_runs_from_the_start(tmp_path: Path) -> None:
    """The plan says so."""

    def graph(edit: int) -> StateGraph:
        return line(("x", node("x")), ("y", node("y", edit)), schema=Hidden)

    assert again(tmp_path, graph(0), graph(1)) == ["x", "y"]
    project = WorkflowProject(
        "p", graph(2), db_path=tmp_path / "kept" / "w.db", output_dir=tmp_path / "kept" / "out"
    )
    with TestBench(project) as bench:
        plan = bench.plan(None, [{"id": "c", "state": {"log": ["in"]}}])
    assert plan.stale[0].again == "run again from the start"
    assert "UntrackedValue" in plan.past_reasons[0]


PROJECT = """
import operator, os
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject, current_workspace

HERE = Path(__file__).parent

class State(TypedDict):
    log: Annotated[list, operator.add]

def body(node, edit=0):
    def work(state: State):
        with (HERE / "bodies.txt").open("a") as file:
            file.write(f"{node}{edit}\\n")
        if os.environ.get("KILL_AT") == f"{node}{edit}" and not (HERE / "killed").exists():
            (HERE / "killed").touch()
            os.kill(os.getpid(), 9)
        with (current_workspace() / "all.txt").open("a") as file:
            file.write(f"{node}{edit}\\n")
        return {"log": [f"{node}{edit}:{len(state['log'])}"]}
    return work

def build(edit):
    builder = StateGraph(State)
    for node in "abcde":
        builder.add_node(node, body(node, edit if node == "c" else 0))
    builder.add_edge(START, "a")
    for pair in ("ab", "bc", "cd", "de"):
        builder.add_edge(*pair)
    return builder

def project(edit):
    made = WorkflowProject("p", build(edit), db_path=HERE / "w.db", output_dir=HERE / "out")
    made.variant("d", "v", body("d", 9))
    return made

REQUEST = {"matrix": {"d": "*"}, "cases": [{"id": "1", "state": {"log": ["in"]}}]}

if __name__ == "__main__":
    with TestBench(project(int(os.environ["EDIT"]))) as bench:
        bench.batch(**REQUEST, runner="inline", max_parallel=1)
"""

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["wtb_prefect.sdk.test_bench", "pytest"])


def run_request(folder: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    runpy.run_path(f"{folder}/project.py", run_name="__main__")


def code_of(folder: Path, **environment: str) -> int | None:
    process = SPAWN.Process(target=run_request, args=(str(folder), environment))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize("where", ["c1", "d0", "d9", "e0"])
def test_killed_while_going_on_from_the_past(tmp_path: Path, where: str) -> None:
    """The same request goes on from its own records: one body is repeated, results are equal."""
    (tmp_path / "project.py").write_text(PROJECT)
    assert code_of(tmp_path, EDIT="0") == 0
    (tmp_path / "bodies.txt").unlink()
    assert code_of(tmp_path, EDIT="1", KILL_AT=where) == -signal.SIGKILL
    assert code_of(tmp_path, EDIT="1") == 0
    ran = (tmp_path / "bodies.txt").read_text().split()
    assert sorted(ran) == sorted(["c1", "d0", "d9", "e0", "e0", where])
    loaded = runpy.run_path(str(tmp_path / "project.py"))
    with TestBench(loaded["project"](1)) as bench:
        result = bench.batch(**loaded["REQUEST"], runner="inline")
        assert result.node_executions == 0
        for cell in result.cells:
            last = "d9" if cell.combination == "d=v" else "d0"
            noted = ["a0", "b0", "c1", last, "e0"]
            assert [note.split(":")[0] for note in cell.state["log"][1:]] == noted
            blob = bench.files(cell.execution_id)["all.txt"].blob_id
            text = tmp_path / "out" / "blobs" / "objects" / blob[:2] / blob[2:]
            assert text.read_text().split() == noted
