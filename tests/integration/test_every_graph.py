"""One batch for each of LangGraph's features: shared equals unshared, at the cost that is said."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.errors import InvalidInputError, NotFoundError
from wtb_prefect.sdk.batch_result import BatchResult

CALLS: list[str] = []


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def node(name: str) -> Callable[[State], dict[str, Any]]:
    """Appends to the state and to a file of its own."""

    def body(state: State) -> dict[str, Any]:
        CALLS.append(name)
        with (current_workspace() / f"{name}.txt").open("a") as file:
            file.write(f"{len(state.get('log', []))}\n")
        return {"log": [f"{name}/{len(state.get('log', []))}"]}

    return body


def asks(name: str) -> Callable[[State], dict[str, Any]]:
    """Asks two questions."""

    def body(state: State) -> dict[str, Any]:
        CALLS.append(name)
        first = interrupt({"of": name, "number": 1})
        second = interrupt({"of": name, "number": 2})
        return {"log": [f"{name}:{first}:{second}"]}

    return body


def line(*nodes: tuple[str, Any], **options: Any) -> StateGraph:
    """Nodes one after the other."""
    builder = StateGraph(State)
    before = START
    for name, implementation in nodes:
        builder.add_node(name, implementation, **options)
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder


def inner(checkpointer: bool | None = None, middle: Any = None) -> Any:
    """A subgraph a -> (mid ->) b."""
    nodes = [("a", node("a")), *([("mid", middle)] if middle else []), ("b", node("b"))]
    return line(*nodes).compile(checkpointer=checkpointer)


def beside(implementation: Any) -> StateGraph:
    """x -> (sub beside z) -> y."""
    builder = StateGraph(State)
    for name, code in (("x", node("x")), ("sub", implementation), ("z", node("z"))):
        builder.add_node(name, code)
    builder.add_node("y", node("y"))
    builder.add_edge(START, "x")
    for name in ("sub", "z"):
        builder.add_edge("x", name)
    builder.add_edge(["sub", "z"], "y")
    builder.add_edge("y", END)
    return builder


def twice(implementation: Any) -> StateGraph:
    """x -> sub -> y, and once more from sub."""
    builder = StateGraph(State)
    for name, code in (("x", node("x")), ("sub", implementation), ("y", node("y"))):
        builder.add_node(name, code)
    builder.add_edge(START, "x")
    builder.add_edge("x", "sub")
    builder.add_edge("sub", "y")

    def again(state: State) -> str:
        visits = sum(entry.startswith("y") for entry in state["log"])
        return "sub" if visits < 3 else END

    builder.add_conditional_edges("y", again, ["sub", END])
    return builder


@dataclass(frozen=True)
class Run:
    """A batch, the bodies it called, and what can be compared of its cells."""

    result: BatchResult
    calls: list[str]
    cells: dict[str, tuple[Any, ...]]


def batch(
    folder: Path,
    graph: Any,
    variants: Mapping[tuple[str, str], Any],
    *,
    share: bool = True,
    answers: Any = None,
    **options: Any,
) -> Run:
    """Every combination of the variants over one case."""
    project = WorkflowProject(
        "p", graph, db_path=folder / f"{share}.db", output_dir=folder / str(share), **options
    )
    for (name, variant), implementation in variants.items():
        project.variant(name, variant, implementation)
    case = {"id": "c", "state": {"log": ["in"]}, "answers": answers}
    CALLS.clear()
    with TestBench(project) as bench:
        result = bench.batch(
            {name: "*" for name, _ in variants}, [case], runner="inline", share_prefixes=share
        )
        calls = list(CALLS)
        cells = {
            cell.combination: (
                dict(cell.state),
                cell.status,
                None if cell.error is None else (cell.error.node, cell.error.type),
                [sorted(point.nodes) for point in bench.history(cell.execution_id or "")],
                {path: m.blob_id for path, m in bench.files(cell.execution_id or "").items()},
            )
            for cell in result.cells
        }
    return Run(result, calls, cells)


def both(folder: Path, graph: Any, variants: Mapping[tuple[str, str], Any], **options: Any) -> Run:
    """The shared run, after comparing it with the unshared one."""
    shared = batch(folder, graph, variants, **options)
    alone = batch(folder, graph, variants, share=False, **options)
    assert shared.cells == alone.cells
    for run in (shared, alone):
        assert run.result.node_executions == len(run.calls)
    return shared


def reasons(run: Run) -> set[str | None]:
    return {cell.unshared_reason for cell in run.result.cells}


TWO = {("sub|b", "b2"): node("b2"), ("y", "y2"): node("y2")}

# (graph, variants, bodies of the shared batch)
SUBGRAPHS = {
    "inside": (lambda: beside(inner()), {("sub|b", "b2"): node("b2")}, 7),
    "inside and beside": (
        lambda: beside(inner()),
        {("sub|a", "a2"): node("a2"), ("sub|b", "b2"): node("b2"), ("z", "z2"): node("z2")},
        23,
    ),
    "two levels down": (
        lambda: beside(inner(middle=inner())),
        {("sub|mid|b", "b2"): node("b2"), ("y", "y2"): node("y2")},
        12,
    ),
    "in a loop": (lambda: twice(inner()), TWO, 20),
    "with a memory": (lambda: twice(inner(True)), TWO, 20),
    "with a memory, in one without": (
        lambda: beside(inner(middle=inner(True))),
        {("sub|mid|b", "b2"): node("b2"), ("y", "y2"): node("y2")},
        12,
    ),
    "a function in its place": (lambda: beside(inner()), {("sub", "f"): node("f")}, 7),
    "a graph in its place": (
        lambda: beside(inner()),
        {("sub", "g"): inner(middle=node("mid"))},
        9,
    ),
    "with a memory, in its place": (
        lambda: twice(inner(True)),
        {("sub", "f"): node("f"), ("y", "y2"): node("y2")},
        None,
    ),
}


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_subgraphs(name: str, tmp_path: Path) -> None:
    """Divergence inside a subgraph and at its node; inner nodes are bodies, the subgraph is not."""
    graph, variants, bodies = SUBGRAPHS[name]
    run = both(tmp_path, graph, variants)
    assert reasons(run) == {None}
    if bodies is not None:
        assert len(run.calls) == bodies, run.calls


def test_inner_nodes_show_which_code_ran(tmp_path: Path) -> None:
    """By path, with the variant that was chosen there."""
    run = batch(tmp_path, lambda: beside(inner()), {("sub|b", "b2"): node("b2")})
    project = WorkflowProject(
        "p", lambda: beside(inner()), db_path=tmp_path / "True.db", output_dir=tmp_path / "True"
    )
    cell = next(cell for cell in run.result.cells if cell.combination == "sub|b=b2")
    with TestBench(project) as bench:
        ran = bench.implementations(cell.execution_id or "")
    assert {name: text.split("@")[0] for name, text in ran.items()} == {
        "x": "original",
        "sub": "original",
        "sub|a": "original",
        "sub|b": "b2",
        "z": "original",
        "y": "original",
    }
    assert len(set(ran.values())) == len(ran)


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """It says which nodes there are."""
    with pytest.raises(NotFoundError, match=r"'sub\|c'.*sub\|a, sub\|b"):
        batch(tmp_path, lambda: beside(inner()), {("sub|c", "v"): node("v")})
    with pytest.raises(NotFoundError, match=r"'sub\|a'"):
        batch(tmp_path, lambda: beside(inner(False)), {("sub|a", "v"): node("v")})


def test_a_subgraph_without_checkpoints_is_one_body(tmp_path: Path) -> None:
    """LangGraph itself fails on it with durability="sync"."""
    variants = {("y", "y2"): node("y2"), ("z", "z2"): node("z2")}
    run = batch(tmp_path, lambda: beside(inner(False)), variants)
    alone = batch(tmp_path, lambda: beside(inner(False)), variants, share=False)
    assert run.cells == alone.cells
    assert run.result.node_executions == 8  # x, sub, z, z2 and four of y; a and b are inside sub
    assert run.calls.count("a") == 1


def test_answers_of_a_list_in_order(tmp_path: Path) -> None:
    """A node that asks twice gets the first two; forks go on behind it."""
    graph = lambda: line(("x", node("x")), ("q", asks("q")), ("y", node("y")), ("z", asks("z")))  # noqa: E731
    run = both(tmp_path, graph, {("y", "y2"): node("y2")}, answers=["A", "B", "C", "D"])
    assert reasons(run) == {None}
    assert run.cells["baseline"][0]["log"] == ["in", "x/1", "q:A:B", "y/3", "z:C:D"]
    assert run.cells["y=y2"][0]["log"] == ["in", "x/1", "q:A:B", "y2/3", "z:C:D"]
    # q runs three times for its two questions, once for both combinations; z in each of them.
    assert (run.calls.count("q"), run.calls.count("z")) == (3, 6)


def answer(question: Any) -> str:
    return f"{question['of']}{question['number']}"


async def later(question: Any) -> str:
    return answer(question)


@pytest.mark.parametrize("function", [answer, later])
def test_answers_of_a_function_keep_sharing(function: Any, tmp_path: Path) -> None:
    """Beside a node that varies, in variants and inside subgraphs."""
    variants = {("z", "z2"): asks("z2"), ("sub|b", "b2"): asks("b2"), ("y", "y2"): node("y2")}
    run = both(tmp_path, lambda: beside(inner(middle=asks("mid"))), variants, answers=function)
    assert reasons(run) == {None}
    assert "mid:mid1:mid2" in run.cells["baseline"][0]["log"]
    assert "z2:z21:z22" in run.cells["z=z2"][0]["log"]


@pytest.mark.parametrize("answers", [["A", "B", "C", "D"], ["A"], None])
def test_a_list_beside_a_node_that_varies_runs_unshared(answers: Any, tmp_path: Path) -> None:
    """Which answer is whose depends on what that node asks."""
    variants = {("z", "z2"): asks("z2")}
    run = both(tmp_path, lambda: beside(asks("sub")), variants, answers=answers)
    assert all("question is open" in (reason or "") for reason in reasons(run))
    if answers and len(answers) > 1:
        assert {"sub:A:C", "z2:B:D"} <= set(run.cells["z=z2"][0]["log"])


def test_without_an_answer_the_cell_is_paused_until_it_has_one(tmp_path: Path) -> None:
    """Counted apart, not asked again by the same request, and gone on with once it has answers."""
    project = WorkflowProject(
        "p",
        line(("x", node("x")), ("q", asks("q")), ("y", node("y"))),
        db_path=tmp_path / "w.db",
        output_dir=tmp_path / "o",
    )
    project.variant("y", "y2", node("y2"))
    case = {"id": "c", "state": {"log": ["in"]}}
    CALLS.clear()
    with TestBench(project) as bench:

        def run(answers: list[str]) -> BatchResult:
            return bench.batch(
                {"y": "*"}, [{**case, "answers": answers}], runner="inline", batch_id="b"
            )

        paused = run([])
        assert [(row.paused, row.completed) for row in paused.table()] == [(1, 0), (1, 0)]
        assert paused.node_executions == len(CALLS) == 2
        assert run([]).node_executions == 0
        assert {cell.status for cell in run(["A"]).cells} == {"paused"}
        done = run(["A", "B"])
        assert {cell.status for cell in done.cells} == {"completed"}
        assert {cell.state["log"][2] for cell in done.cells} == {"q:A:B"}


def test_answers_have_to_be_answers(tmp_path: Path) -> None:
    """And other processes have to find a function."""
    with pytest.raises(InvalidInputError, match="list, in the order"):
        batch(tmp_path, line(("x", asks("x"))), {}, answers="yes")
    project = WorkflowProject(
        "p", line(("x", asks("x"))), db_path=tmp_path / "w.db", output_dir=tmp_path / "o"
    )
    project._module = "somewhere.else"
    case = {"id": "c", "state": {"log": []}, "answers": lambda question: "yes"}
    from wtb_prefect.application.batch_test import register_request
    from wtb_prefect.application.plan_batch import BatchRequest

    with TestBench(project) as bench, pytest.raises(InvalidInputError, match="top level"):
        register_request(
            BatchRequest(matrix=None, cases=[case]), bench.session, lambda owner: False, "ray"
        )


def stored(name: str) -> Callable[..., dict[str, Any]]:
    """Reads all notes of the store and adds one."""

    def body(state: State, *, store: BaseStore) -> dict[str, Any]:
        CALLS.append(name)
        notes = sorted(item.value["note"] for item in store.search(("notes",)))
        store.put(("notes",), name, {"note": f"{name}{len(notes)}"})
        return {"log": [f"{name}: {' '.join(notes)}"]}

    return body


def with_store() -> Any:
    store = InMemoryStore()
    store.put(("notes",), "first", {"note": "first"})
    nodes = [(name, stored(name)) for name in "xyzw"]
    return line(*nodes).compile(store=store)


def test_every_fork_has_a_store_of_its_own(tmp_path: Path) -> None:
    """With what its prefix put there, and nothing of the others'."""
    variants = {("y", "y2"): stored("y2"), ("z", "z2"): stored("z2")}
    run = both(tmp_path, with_store, variants)
    assert reasons(run) == {None}
    assert len(run.calls) == 11
    assert run.cells["y=y2,z=z2"][0]["log"][-1] == "w: first x1 y22 z23"


class Store(InMemoryStore):
    """Of a class that nobody knows how to copy."""


def test_another_kind_of_store_runs_unshared(tmp_path: Path) -> None:
    """And the plan says why."""
    graph = line(("x", node("x")), ("y", node("y"))).compile(store=Store())
    run = batch(tmp_path, graph, {("y", "y2"): node("y2")})
    assert all("Store" in (reason or "") for reason in reasons(run))


class Deltas(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(lambda old, new: old + [x for w in new for x in w])]


def test_a_history_of_writes_is_forked_whole(tmp_path: Path) -> None:
    """A copied checkpoint of a DeltaChannel has no ancestors to rebuild it from."""

    def note(name: str) -> Callable[[Deltas], dict[str, Any]]:
        def body(state: Deltas) -> dict[str, Any]:
            CALLS.append(name)
            return {"log": [f"{name}/{len(state['log'])}"]}

        return body

    def graph() -> StateGraph:
        builder = StateGraph(Deltas)
        for name in ("x", "p", "q", "y", "z"):
            builder.add_node(name, note(name))
        builder.add_edge(START, "x")
        for name in ("p", "q"):
            builder.add_edge("x", name)
        builder.add_edge(["p", "q"], "y")
        builder.add_edge("y", "z")
        return builder

    variants = {("q", "q2"): note("q2"), ("z", "z2"): note("z2")}
    run = both(tmp_path, graph, variants)
    assert reasons(run) == {None}
    assert len(run.calls) == 10
    assert run.cells["q=q2,z=z2"][0]["log"] == ["in", "x/1", "p/2", "q2/2", "y/4", "z2/5"]


@dataclass(frozen=True)
class Context:
    word: str


def test_the_context_reaches_every_segment(tmp_path: Path) -> None:
    """It is no part of a checkpoint."""

    def says(name: str) -> Callable[..., dict[str, Any]]:
        def body(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
            CALLS.append(name)
            return {"log": [f"{name} {runtime.context.word}"]}

        return body

    builder = StateGraph(State, context_schema=Context)
    builder.add_node("x", says("x"))
    builder.add_node("y", says("y"))
    builder.add_edge(START, "x")
    builder.add_edge("x", "y")
    run = both(tmp_path, builder, {("y", "y2"): says("y2")}, context=Context("word"))
    assert run.cells["y=y2"][0]["log"] == ["in", "x word", "y2 word"]
    assert len(run.calls) == 3


def test_a_node_cache_never_answers_for_another_variant(tmp_path: Path) -> None:
    """LangGraph's keys name the function, and both variants are made by one."""

    def says(word: str) -> Callable[[State], dict[str, Any]]:
        def body(state: State) -> dict[str, Any]:
            CALLS.append(word)
            return {"log": [word]}

        return body

    def graph() -> Any:
        nodes = [("x", says("x")), ("y", says("y"))]
        return line(*nodes, cache_policy=CachePolicy()).compile(cache=InMemoryCache())

    project = WorkflowProject("p", graph, db_path=tmp_path / "w.db", output_dir=tmp_path / "o")
    project.variant("y", "one", says("one"))
    project.variant("y", "two", says("two"))
    cases = [{"id": str(number), "state": {"log": ["in"]}} for number in range(3)]
    CALLS.clear()
    with TestBench(project) as bench:
        result = bench.batch({"y": "*"}, cases, runner="inline", max_parallel=1)
        assert sorted(CALLS) == ["one", "two", "x", "y"]
        assert result.node_executions == 4
        last = {cell.combination: cell.state["log"][-1] for cell in result.cells}
        assert last == {"baseline": "y", "y=one": "one", "y=two": "two"}
        with bench.session.open_uow() as uow:
            hits = sum(run.cache_hits for run in uow.executions.list(batch_id=result.batch_id))
        assert hits == 2 * 4


def test_retries_are_bodies(tmp_path: Path) -> None:
    """LangGraph's own retry policy works in shared prefixes and in variants."""

    def fails_first(name: str) -> Callable[[State], dict[str, Any]]:
        def body(state: State) -> dict[str, Any]:
            CALLS.append(name)
            tried = current_workspace() / f"{name}.tried"
            if not tried.exists():
                tried.touch()
                raise ConnectionError("again")
            return {"log": [name]}

        return body

    policy = RetryPolicy(initial_interval=0.001, max_attempts=2, jitter=False)
    graph = line(("x", fails_first("x")), ("y", fails_first("y")), retry_policy=policy)
    run = both(tmp_path, graph, {("y", "y2"): fails_first("y2")})
    assert sorted(run.calls) == ["x", "x", "y", "y", "y2", "y2"]


def test_an_error_handler_beside_a_gate_runs_unshared(tmp_path: Path) -> None:
    """LangGraph would run the handler again in every fork; behind it, sharing goes on."""

    def fails(state: State) -> dict[str, Any]:
        CALLS.append("fails")
        raise ValueError("no")

    def handles(state: State) -> dict[str, Any]:
        CALLS.append("handles")
        return {"log": ["handled"]}

    def graph() -> StateGraph:
        builder = StateGraph(State)
        builder.add_node("x", node("x"))
        builder.add_node("e", fails, error_handler=handles)
        builder.add_node("z", node("z"))
        builder.add_edge(START, "x")
        builder.add_edge("x", "e")
        builder.add_edge("x", "z")
        return builder

    run = both(tmp_path, graph, {("z", "z2"): node("z2")})
    assert all("error handler" in (reason or "") for reason in reasons(run))


def test_send_and_command(tmp_path: Path) -> None:
    """Fan-out to a subgraph with a gate inside, and a jump out of a subgraph."""

    def spread(state: State) -> list[Send]:
        return [Send("m", {"log": [str(number)]}) for number in range(3)]

    def graph() -> StateGraph:
        builder = StateGraph(State)
        builder.add_node("x", node("x"))
        builder.add_node("m", inner())
        builder.add_node("y", node("y"))
        builder.add_edge(START, "x")
        builder.add_conditional_edges("x", spread, ["m"])
        builder.add_edge("m", "y")
        return builder

    variants = {("m|b", "b2"): node("b2"), ("y", "y2"): node("y2")}
    shared = batch(tmp_path, graph, variants)
    alone = batch(tmp_path, graph, variants, share=False)
    # The three tasks append to one file each in whatever order they come.
    assert {k: v[:4] for k, v in shared.cells.items()} == {k: v[:4] for k, v in alone.cells.items()}
    assert len(shared.calls) == 1 + 3 + 2 * 3 + 4


def test_a_jump_to_the_parent(tmp_path: Path) -> None:
    """`Command(graph=Command.PARENT)` from behind a gate inside."""

    def jumps(name: str) -> Callable[[State], Command[str]]:
        def body(state: State) -> Command[str]:
            CALLS.append(name)
            return Command(graph=Command.PARENT, goto="z", update={"log": [name]})

        return body

    def graph() -> StateGraph:
        builder = StateGraph(State)
        builder.add_node("x", node("x"))
        sub = line(("a", node("a")), ("b", jumps("b"))).compile()
        builder.add_node("sub", sub, destinations=("z", "y"))
        builder.add_node("z", node("z"))
        builder.add_node("y", node("y"))
        builder.add_edge(START, "x")
        builder.add_edge("x", "sub")
        builder.add_edge("z", "y")
        return builder

    variants = {("sub|b", "b2"): jumps("b2"), ("y", "y2"): node("y2")}
    run = both(tmp_path, graph, variants)
    assert reasons(run) == {None}
    assert len(run.calls) == 2 + 2 + 2 + 4


def test_a_limit_is_for_the_whole_path(tmp_path: Path) -> None:
    """Also where a fork begins inside a subgraph that loops."""

    def graph() -> StateGraph:
        sub = StateGraph(State)
        sub.add_node("a", node("a"))
        sub.add_node("b", node("b"))
        sub.add_edge(START, "a")
        sub.add_edge("a", "b")
        sub.add_conditional_edges(
            "b", lambda state: "a" if len(state["log"]) < 9 else END, ["a", END]
        )
        return line(("x", node("x")), ("sub", sub.compile()))

    variants = {("sub|b", "b2"): node("b2")}
    for limit in range(5, 10):
        run = both(tmp_path / str(limit), graph, variants, recursion_limit=limit)
        failed = {cell.status == "failed" for cell in run.result.cells}
        assert len(failed) == 1
