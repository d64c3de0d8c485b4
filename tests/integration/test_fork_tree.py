"""The fork tree case by case: exact costs, failures, what cannot be shared, what is reused."""

from __future__ import annotations

import asyncio
import itertools
import operator
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from graphs import CALLS, State, make_body
from graphs import Body as B
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import RetryPolicy, Send, interrupt
from pydantic import BaseModel

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.infrastructure.workflow.body_context import current_workspace
from wtb_prefect.sdk.batch_result import BatchResult, Cell

CASES = [{"id": "c", "state": {"log": ["in"]}}]
Open = Callable[..., TestBench]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Open]:
    """Opens benches of one project over one ledger, with a graph and variants."""
    opened = []

    def make(
        graph: Any,
        variants: Mapping[tuple[str, str], Any] | None = None,
        evaluators: tuple[Callable[..., Any], ...] = (),
        **options: Any,
    ) -> TestBench:
        project = WorkflowProject(
            "p", graph, db_path=tmp_path / "w.db", output_dir=tmp_path / "out", **options
        )
        for (node, name), code in (variants or {}).items():
            project.variant(node, name, code)
        for evaluator in evaluators:
            project.evaluator(evaluator)
        opened.append(TestBench(project))
        CALLS.take()
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


def run(bench: TestBench, matrix: Any = None, cases: Any = CASES, **options: Any) -> BatchResult:
    """A batch on the inline runner whose count of bodies is that of the nodes themselves."""
    result = bench.batch(matrix=matrix, cases=cases, runner="inline", **options)
    assert result.node_executions == CALLS.take().total()
    return result


def cells(result: BatchResult) -> dict[str, Cell]:
    """By combination; the list is sorted by its name, so variants come before the baseline here."""
    return {cell.combination: cell for cell in result.cells}


def line(*names: str, schema: Any = State, bodies: Mapping[str, Any] | None = None) -> StateGraph:
    """A graph that runs nodes one after another."""
    builder = StateGraph(schema)
    for name in names:
        builder.add_node(name, (bodies or {}).get(name) or make_body(B(name)))
    builder.add_edge(START, names[0])
    for pair in itertools.pairwise(names):
        builder.add_edge(*pair)
    return builder


def variants(*pairs: str) -> dict[tuple[str, str], Any]:
    """`"n3:a"` -> the variant a of n3."""
    found = [pair.split(":") for pair in pairs]
    return {(node, name): make_body(B(node, name)) for node, name in found}


def text_of(bench: TestBench, cell: Cell, path: str) -> str:
    assert cell.execution_id is not None
    blob = bench.files(cell.execution_id)[path].blob_id
    return (bench.project.locations.output_dir / "blobs/objects" / blob[:2] / blob[2:]).read_text()


SIX = line(*"abcdef")
SIX_VARIANTS = variants("d:x", "d:y", "e:x", "e:y", "f:x", "f:y")
CUBE = {"d": "*", "e": "*", "f": "*"}


def test_cube_over_the_last_three_of_six_nodes_runs_42_bodies_a_case(open_bench: Open) -> None:
    """3 + 3 + 9 + 27 shared, 6 * 27 unshared."""
    bench = open_bench(SIX, SIX_VARIANTS)
    cases = [*CASES, {"id": "c2", "state": {"log": []}}]
    assert run(bench, CUBE, cases).node_executions == 2 * 42
    assert run(bench, CUBE, share_prefixes=False, batch_id="alone").node_executions == 162


def test_sibling_of_a_gate_runs_once_and_its_file_is_in_every_child(open_bench: Open) -> None:
    """a -> (gated b | s) -> c: s is not run again by the forks of b."""
    builder = StateGraph(State)
    for name in "absc":
        builder.add_node(name, make_body(B(name)))
    builder.add_edge(START, "a")
    for name in "bs":
        builder.add_edge("a", name)
    builder.add_edge(["b", "s"], "c")
    bench = open_bench(builder, variants("b:x", "b:y"))
    result = run(bench, {"b": "*"})
    assert result.node_executions == 1 + 1 + 3 + 3
    for cell in result.cells:
        assert text_of(bench, cell, "nodes/s.txt") == "s:original:2\n"
        assert cell.state["visits"] == {"a": 1, "b": 1, "c": 1, "s": 1}
        assert set(cell.implementations) == set("absc")


def test_two_gates_in_one_step_are_peeled_one_by_one(open_bench: Open) -> None:
    """|X| + |X||Y| bodies, and siblings once."""
    builder = StateGraph(State)
    for name in ("x", "y", "s"):
        builder.add_node(name, make_body(B(name)))
        builder.add_edge(START, name)
    bench = open_bench(builder, variants("x:1", "x:2", "y:1", "y:2"))
    result = run(bench, {"x": "*", "y": "*"})
    assert result.node_executions == 1 + 3 + 9
    assert all(cell.state["visits"] == {"s": 1, "x": 1, "y": 1} for cell in result.cells)


def looping(times: int) -> StateGraph:
    """a -> b -> a ... until b ran `times` times; c only after the second visit of b."""
    builder = line("a", "b")
    builder.add_node("c", make_body(B("c")))
    builder.add_edge("c", "a")

    def route(state: State) -> str:
        visits = state["visits"]["b"]
        return END if visits >= times else "c" if visits == 2 else "a"

    builder.add_conditional_edges("b", route, ["a", "c", END])
    return builder


def test_loop_that_diverges_late_shares_its_first_rounds(open_bench: Open) -> None:
    """a b a b | c a b: four bodies are shared, three are not."""
    bench = open_bench(looping(3), variants("c:x"))
    result = run(bench, {"c": "*"})
    assert result.node_executions == 4 + 2 * 3
    history = bench.history(result.cells[0].execution_id)
    points = getattr(history, "checkpoints", history)
    assert [n for point in points for n in point.nodes] == list("ababcab")


def test_recursion_limit_counts_the_shared_prefix(open_bench: Open) -> None:
    """For every limit a fork fails, or ends, where the same run alone does."""
    for limit in range(4, 11):
        bench = open_bench(looping(3), variants("c:x"), recursion_limit=limit)
        shared = run(bench, {"c": "*"}, batch_id=f"s{limit}")
        alone = run(bench, {"c": "*"}, batch_id=f"a{limit}", share_prefixes=False)
        for one, other in zip(shared.cells, alone.cells, strict=True):
            assert (one.status, one.state) == (other.status, other.state), limit
            assert (one.error and one.error.message) == (other.error and other.error.message)
            assert one.status == ("completed" if limit > 7 else "failed")


def test_combinations_that_never_meet_their_variant_share_a_leaf(open_bench: Open) -> None:
    """The branch with c is not taken: all combinations are answered by one execution."""
    builder = line("a", "b")
    builder.add_node("c", make_body(B("c")))
    builder.add_conditional_edges("b", lambda state: END, ["c", END])
    result = run(open_bench(builder, variants("c:x", "c:y")), {"c": "*"})
    assert result.node_executions == 2
    assert len({cell.execution_id for cell in result.cells}) == 1
    assert [cell.status for cell in result.cells] == ["completed"] * 3


def test_router_sees_what_the_variant_wrote(open_bench: Open) -> None:
    """A conditional edge after a variant leads each part its own way."""

    def pick(goal: str) -> Callable[[State], dict[str, Any]]:
        def node(state: State) -> dict[str, Any]:
            CALLS.add("pick")
            return {"last": goal}

        return node

    builder = line("a", "pick", bodies={"pick": pick("left")})
    for name in ("left", "right"):
        builder.add_node(name, make_body(B(name)))
    builder.add_conditional_edges("pick", lambda state: state["last"], ["left", "right"])
    result = run(open_bench(builder, {("pick", "r"): pick("right")}), {"pick": "*"})
    assert result.node_executions == 1 + 2 + 2
    ends = [cell.state["log"][-1] for cell in result.cells]
    assert ends == ["left:original:2", "right:original:2"]


def test_failure_in_the_shared_prefix_fails_every_combination_once(open_bench: Open) -> None:
    """Node, type, message and traceback are those of the node; the other case goes on."""

    def fragile(state: State) -> dict[str, Any]:
        CALLS.add("b")
        if state["log"][0] == "bad":
            raise KeyError("no such page")
        return {"log": ["b"]}

    bench = open_bench(line("a", "b", "c", bodies={"b": fragile}), variants("c:x"))
    cases = [{"id": "bad", "state": {"log": ["bad"]}}, {"id": "good", "state": {"log": ["good"]}}]
    result = run(bench, {"c": "*"}, cases)
    assert result.status == "completed"
    assert [cell.status for cell in result.cells] == ["failed", "failed", "completed", "completed"]
    error = result.cells[0].error
    assert error is not None
    assert (error.node, error.type, error.message) == ("b", "KeyError", "'no such page'")
    assert "in fragile" in error.traceback
    assert run(bench, {"c": "*"}, cases).node_executions == 0


def test_failure_in_a_variant_fails_only_its_part(open_bench: Open) -> None:
    """The other parts of the split complete."""
    bad = make_body(B("b", "bad", raises=True))
    result = run(open_bench(line("a", "b", "c"), {("b", "bad"): bad}), {"b": "*"})
    found = cells(result)
    assert found["b=bad"].status == "failed"
    assert found["b=bad"].error is not None
    assert found["b=bad"].error.node == "b"
    assert found["baseline"].status == "completed"
    assert result.node_executions == 4


def test_failure_in_a_sibling_of_a_gate_fails_all_parts(open_bench: Open) -> None:
    """The error wins over the gate, as it would have won over any variant."""
    builder = StateGraph(State)
    builder.add_node("b", make_body(B("b")))
    builder.add_node("s", make_body(B("s", raises=True)))
    for name in "bs":
        builder.add_edge(START, name)
    result = run(open_bench(builder, variants("b:x")), {"b": "*"})
    assert {cell.status for cell in result.cells} == {"failed"}
    assert {cell.error.node for cell in result.cells if cell.error} == {"s"}


class Loose(TypedDict, total=False):
    """A state whose values may be what checkpoints change."""

    log: Annotated[list, operator.add]
    value: Any
    hidden: Annotated[Any, UntrackedValue(Any)]


class Tracked(TypedDict, total=False):
    """The same without the untracked key."""

    log: Annotated[list, operator.add]
    value: Any


def test_lossy_values_run_unshared_and_say_why(open_bench: Open) -> None:
    """A tuple would come back as a list: the part runs alone, and sees a tuple."""

    def first(state: Tracked) -> dict[str, Any]:
        return {"value": (1, 2)}

    def second(state: Tracked) -> dict[str, Any]:
        return {"log": [type(state["value"]).__name__]}

    def other(state: Tracked) -> dict[str, Any]:
        return {"log": ["other " + type(state["value"]).__name__]}

    builder = line("a", "b", schema=Tracked, bodies={"a": first, "b": second})
    result = open_bench(builder, {("b", "x"): other}).batch(
        matrix={"b": "*"}, cases=CASES, runner="inline"
    )
    assert [cell.state["log"][-1] for cell in result.cells] == ["tuple", "other tuple"]
    for cell in result.cells:
        assert "'value' is a tuple and comes back as a list" in (cell.unshared_reason or "")


def test_lossy_values_sent_to_nodes_run_unshared(open_bench: Open) -> None:
    """What `Send` carries is not in the state, but in the checkpoint."""

    def work(tag: str) -> Callable[[Any], dict[str, Any]]:
        def node(given: Any) -> dict[str, Any]:
            return {"log": [f"{tag} {type(given['part']).__name__}"]}

        return node

    builder = line("a", schema=Tracked, bodies={"a": lambda state: {"log": ["a"]}})
    builder.add_node("w", work("w"))
    builder.add_conditional_edges("a", lambda state: [Send("w", {"part": (1,)})], ["w"])
    result = open_bench(builder, {("w", "x"): work("x")}).batch(
        matrix={"w": "*"}, cases=CASES, runner="inline"
    )
    assert [cell.state["log"][-1] for cell in result.cells] == ["w tuple", "x tuple"]
    assert "what is sent to nodes" in (result.cells[0].unshared_reason or "")


def test_mutation_in_place_runs_unshared(open_bench: Open) -> None:
    """A node that changes a value without writing it: unshared runs see it, a fork would not."""

    def first(state: Tracked) -> dict[str, Any]:
        return {"value": {"n": 1}}

    def sneaky(state: Tracked) -> dict[str, Any]:
        state["value"]["n"] += 1
        return {"log": ["sneaky"]}

    def last(state: Tracked) -> dict[str, Any]:
        return {"log": [f"saw {state['value']['n']}"]}

    builder = line("a", "b", "c", schema=Tracked, bodies={"a": first, "b": sneaky, "c": last})
    bench = open_bench(builder, {("c", "x"): lambda state: {"log": [state["value"]["n"]]}})
    shared = bench.batch(matrix={"c": "*"}, cases=CASES, runner="inline")
    alone = bench.batch(
        matrix={"c": "*"}, cases=CASES, runner="inline", share_prefixes=False, batch_id="alone"
    )
    assert [c.state["log"] for c in shared.cells] == [c.state["log"] for c in alone.cells]


def test_untracked_values_are_planned_unshared(open_bench: Open) -> None:
    """Known before anything runs: the plan says so."""

    def reads(tag: str) -> Callable[[Loose], dict[str, Any]]:
        return lambda state: {"log": [f"{tag}{state.get('hidden')}"]}

    bodies = {"a": lambda state: {"hidden": 7, "log": ["a"]}, "b": reads("b")}
    bench = open_bench(line("a", "b", schema=Loose, bodies=bodies), {("b", "x"): reads("x")})
    plan = bench.plan({"b": "*"}, CASES)
    assert "UntrackedValue" in plan.unshared_reasons[0]
    result = bench.batch(matrix={"b": "*"}, cases=CASES, runner="inline")
    assert [cell.state["log"][-1] for cell in result.cells] == ["b7", "x7"]
    assert "UntrackedValue" in (result.cells[0].unshared_reason or "")


def test_retried_bodies_count_each_call(open_bench: Open) -> None:
    """A retry policy is kept by a replacement, and three calls are three bodies."""

    def shaky() -> Callable[[State], dict[str, Any]]:
        left = [2]

        def node(state: State) -> dict[str, Any]:
            CALLS.add("b")
            if left[0]:
                left[0] -= 1
                raise ConnectionError("again")
            return {"log": ["b"]}

        return node

    builder = line("a")
    builder.add_node("b", shaky(), retry_policy=RetryPolicy(initial_interval=0.01, jitter=False))
    builder.add_edge("a", "b")
    bench = open_bench(builder, {("b", "x"): shaky()})
    result = run(bench, {"b": "*"})
    assert result.node_executions == 1 + 3 + 3
    assert {cell.status for cell in result.cells} == {"completed"}
    assert {cell.result.node_executions for cell in result.cells} == {4}


def factory() -> StateGraph:
    return line("a", "b")


def test_graph_may_be_builder_factory_compiled_or_import_path(open_bench: Open) -> None:
    """All four are the same graph: the second to the fourth find the first one's answers."""
    module = types.ModuleType("wtb_graph_of_a_test")
    module.made = factory  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        graphs = (factory(), factory, factory().compile(), f"{module.__name__}:made")
        results = [run(open_bench(graph, variants("b:x")), {"b": "*"}) for graph in graphs]
    finally:
        del sys.modules[module.__name__]
    assert [result.node_executions for result in results] == [3, 0, 0, 0]


def test_builder_of_the_user_is_left_as_it_was(open_bench: Open) -> None:
    """It still compiles, and runs its own nodes."""
    builder = line("a", "b")
    nodes = dict(builder.nodes)
    run(open_bench(builder, variants("b:x")), {"b": "*"})
    assert builder.nodes == nodes
    assert not builder.compiled
    with pytest.raises(Exception, match="outside of an execution"):
        builder.compile().invoke({"log": []})


def test_only_what_is_new_runs(open_bench: Open) -> None:
    """A new variant, case or repeat: done cells are adopted, or kept under an explicit batch id;
    a new variant begins where the others parted, whichever batch ran what comes before."""
    bench = open_bench(line("a", "b"), variants("b:x", "b:y"))
    more = [*CASES, {"id": "c2", "state": {"log": []}}]
    for batch_id in (None, "mine"):
        assert run(bench, {"b": ["original", "x"]}, batch_id=batch_id).node_executions == 3
        assert run(bench, {"b": ["original", "x"]}, batch_id=batch_id).node_executions == 0
        wider = run(bench, {"b": "*"}, batch_id=batch_id)
        assert wider.node_executions == 1
        assert len(wider.cells) == 3
        assert run(bench, {"b": "*"}, more, batch_id=batch_id).node_executions == 4
        assert run(bench, {"b": "*"}, more, batch_id=batch_id, repeats=2).node_executions == 8
        counts = bench.plan({"b": "*"}, more, repeats=2, batch_id=batch_id).counts
        assert counts[CellState.DONE] == 12


def test_repeats_are_draws_of_their_own(open_bench: Open) -> None:
    """Each repeat has its own root; forks of one repeat share theirs."""
    draws = iter(range(100))
    bodies = {"a": lambda state: {"log": [str(next(draws))]}}
    bench = open_bench(line("a", "b", bodies=bodies), variants("b:x"))
    result = bench.batch(matrix={"b": "*"}, cases=CASES, repeats=2, runner="inline")
    seen = {(cell.repeat, cell.state["log"][1]) for cell in result.cells}
    assert len(seen) == 2


def test_edited_node_is_stale_and_runs_again(open_bench: Open) -> None:
    """The plan names the node; the rerun gives the new result."""
    run(open_bench(line("a", "b"), variants("b:x")), {"b": "*"})
    edited = open_bench(line("a", "b"), {("b", "x"): make_body(B("b", "edited"))})
    plan = edited.plan({"b": "*"}, CASES)
    assert plan.stale_reasons == {"node b": 1}
    assert plan.counts[CellState.DONE] == 1
    result = run(edited, {"b": "*"})
    assert cells(result)["b=x"].state["log"][-1] == "b:edited:2"
    assert run(edited, {"b": "*"}).node_executions == 0


def length(state: Mapping[str, Any]) -> int:
    return len(state["log"])


def first_page(state: Mapping[str, Any]) -> int:
    return next(iter([]))


def broken(state: Mapping[str, Any]) -> float:
    return 1 / 0


def test_edited_evaluator_scores_again_without_bodies(open_bench: Open) -> None:
    """State and files are there: only the evaluator runs."""
    first = open_bench(line("a", "b"), variants("b:x"), (length,))
    assert run(first, {"b": "*"}).cells[0].scores == {"length": 3.0}

    def doubled(state: Mapping[str, Any]) -> int:
        return 2 * len(state["log"])

    doubled.__name__ = "length"
    edited = open_bench(line("a", "b"), variants("b:x"), (doubled,))
    assert edited.plan({"b": "*"}, CASES).stale_reasons == {"evaluator length": 2}
    result = run(edited, {"b": "*"})
    assert result.node_executions == 0
    assert [cell.scores for cell in result.cells] == [{"length": 6.0}] * 2


@pytest.mark.timeout(60)
def test_evaluator_that_raises_is_a_failure_and_no_score(open_bench: Open) -> None:
    """Also one that raises StopIteration, which a future cannot carry."""
    bench = open_bench(line("a"), {}, (length, broken, first_page))
    result = run(bench)
    cell = result.cells[0]
    assert cell.scores == {"length": 2.0}
    assert "ZeroDivisionError" in cell.result.score_errors["broken"]
    assert "StopIteration" in cell.result.score_errors["first_page"]
    with bench.session.open_uow() as uow:
        found = uow.evaluation_results.list_many([cell.execution_id])[cell.execution_id]
    assert any(r.traceback and "in broken" in r.traceback for r in found)
    assert result.table()[0].evaluator_failures == 2


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def test_messages_are_shared_and_their_tokens_recorded(open_bench: Open) -> None:
    """Usage of the shared prefix belongs to every cell behind it."""

    def say(text: str, tokens: int) -> Callable[[Chat], dict[str, Any]]:
        def node(state: Chat) -> dict[str, Any]:
            usage = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
            return {"messages": [AIMessage(text, usage_metadata=usage)]}

        return node

    bodies = {"a": say("one", 10), "b": say("two", 20)}
    bench = open_bench(line("a", "b", schema=Chat, bodies=bodies), {("b", "x"): say("three", 30)})
    cases = [{"id": "c", "state": {"messages": [HumanMessage("hi")]}}]
    result = bench.batch(matrix={"b": "*"}, cases=cases, runner="inline")
    assert [cell.unshared_reason for cell in result.cells] == [None, None]
    assert [cell.result.input_tokens for cell in result.cells] == [30, 40]
    assert [cell.result.output_tokens for cell in result.cells] == [2, 2]
    assert [m.content for m in result.cells[0].state["messages"]] == ["hi", "one", "two"]
    assert result.node_executions == 3


class Page(BaseModel):
    """A pydantic state."""

    title: str
    words: list[str] = []


@dataclass
class Note:
    """A dataclass state."""

    title: str
    words: Annotated[list[str], operator.add]


@pytest.mark.parametrize("schema", [Page, Note])
def test_pydantic_and_dataclass_states_are_shared(open_bench: Open, schema: Any) -> None:
    """Nodes get instances, before and after a fork."""

    def add(tag: str) -> Callable[[Any], dict[str, Any]]:
        def node(state: Any) -> dict[str, Any]:
            assert isinstance(state, schema)
            return {"title": f"{state.title} {tag}"}

        return node

    bench = open_bench(
        line("a", "b", schema=schema, bodies={"a": add("a"), "b": add("b")}), {("b", "x"): add("x")}
    )
    cases = [{"id": "c", "state": {"title": "t", "words": ["w"]}}]
    result = bench.batch(matrix={"b": "*"}, cases=cases, runner="inline")
    assert [(c.status, c.unshared_reason) for c in result.cells] == [("completed", None)] * 2
    assert [cell.state["title"] for cell in result.cells] == ["t a b", "t a x"]


def test_interrupt_pauses_its_cells(open_bench: Open) -> None:
    """A question before the split belongs to all, after it to its part."""

    def asks(state: State) -> dict[str, Any]:
        return {"log": [interrupt("sure?")]}

    bench = open_bench(line("a", "b", "c"), {("b", "asks"): asks})
    found = cells(bench.batch(matrix={"b": "*"}, cases=CASES, runner="inline"))
    assert found["b=asks"].status == "paused"
    assert found["baseline"].status == "completed"
    before = open_bench(line("a", "b", bodies={"a": asks}), variants("b:x"))
    result = before.batch(matrix={"b": "*"}, cases=CASES, runner="inline", batch_id="before")
    assert {cell.status for cell in result.cells} == {"paused"}
    assert result.table()[0].paused == 1


def test_batch_works_inside_a_running_loop(open_bench: Open) -> None:
    """As in a notebook: the blocking method, and its async twin."""
    bench = open_bench(line("a", "b"), variants("b:x"))

    async def cell() -> tuple[int, int]:
        first = bench.batch(matrix={"b": "*"}, cases=CASES, runner="inline")
        again = await bench.abatch(matrix={"b": "*"}, cases=CASES, runner="inline")
        return first.node_executions, again.node_executions

    assert asyncio.run(cell()) == (3, 0)


def test_a_full_disk_is_no_failure_of_the_workflow(
    open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells stay open, the error is the store's, and the same request goes on."""
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver

    from wtb_prefect.errors import CheckpointError

    bench = open_bench(line("a", "b", "c"), variants("c:x"))
    put, puts = SqliteSaver.put, iter(range(100))

    def full(self: Any, *args: Any) -> Any:
        if next(puts) == 3:
            raise sqlite3.OperationalError("database or disk is full")
        return put(self, *args)

    monkeypatch.setattr(SqliteSaver, "put", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        bench.batch(matrix={"c": "*"}, cases=CASES, runner="inline")
    monkeypatch.undo()
    CALLS.take()
    result = run(bench, {"c": "*"})
    assert result.node_executions <= 4
    assert {cell.status for cell in result.cells} == {"completed"}


def test_workspace_of_a_case_and_base_are_isolated(open_bench: Open, tmp_path: Path) -> None:
    """A node that changes a base file changes it for its own execution only."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "doc.txt").write_text("base")

    def edits(tag: str) -> Callable[[State], dict[str, Any]]:
        def node(state: State) -> dict[str, Any]:
            file = current_workspace() / "doc.txt"
            file.write_text(file.read_text() + tag)
            return {"log": [file.read_text()]}

        return node

    builder = line("a", "b", bodies={"a": edits("+a"), "b": edits("+b")})
    bench = open_bench(builder, {("b", "x"): edits("+x")}, workspace=base)
    result = bench.batch(matrix={"b": "*"}, cases=CASES, runner="inline")
    assert [text_of(bench, cell, "doc.txt") for cell in result.cells] == ["base+a+b", "base+a+x"]
    assert (base / "doc.txt").read_text() == "base"
