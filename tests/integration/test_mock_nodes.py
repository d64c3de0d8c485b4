"""Nodes that are answered for: canned and recorded outputs, and how they are kept apart."""

from __future__ import annotations

import operator
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import CachePolicy, Command, Send

from wtb_prefect import Recorded, TestBench, WorkflowProject, current_workspace
from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.application.read_history import read_boundaries
from wtb_prefect.errors import InvalidInputError, NotFoundError, StateError
from wtb_prefect.sdk.batch_result import BatchResult, Cell

CALLS: Counter[str] = Counter()
CASES = [{"id": "c", "state": {"log": []}}]
Open = Callable[..., TestBench]


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    messages: Annotated[list[AnyMessage], add_messages]
    n: int


def body(name: str, **more: Any) -> Callable[[State], dict[str, Any]]:
    def node(state: State) -> dict[str, Any]:
        CALLS[name] += 1
        return {"log": [f"{name}{len(state.get('log', []))}"], **more}

    return node


def drawing(state: State) -> dict[str, Any]:
    """Another output each time, and a file beside it."""
    CALLS["b"] += 1
    drawn = f"b-{random.random()}"
    (current_workspace() / "drawn.txt").write_text(drawn)
    return {"log": [drawn]}


def line(**bodies: Any) -> StateGraph:
    """a -> b -> c."""
    builder = StateGraph(State)
    for name in "abc":
        builder.add_node(name, bodies.get(name) or body(name))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    return builder


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Open]:
    opened = []

    def make(graph: Any, *variants: str, **options: Any) -> TestBench:
        project = WorkflowProject(
            "p", graph, db_path=tmp_path / "w.db", output_dir=tmp_path / "out", **options
        )
        for pair in variants:
            node, name = pair.split(":")
            project.variant(node, name, body(name))
        project.evaluator(primary=True)(length)
        opened.append(TestBench(project))
        CALLS.clear()
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


def length(state: Any) -> int:
    return len(state["log"])


def run(bench: TestBench, matrix: Any = None, cases: Any = CASES, **options: Any) -> BatchResult:
    return bench.batch(matrix, cases, runner="inline", **options)


def only(result: BatchResult) -> Cell:
    assert [cell.error for cell in result.cells] == [None]
    return result.cells[0]


class TestMocks:
    def test_the_output_stands_for_the_node(self, open_bench: Open) -> None:
        bench = open_bench(line())
        result = run(bench, mocks={"b": {"log": ["canned"]}})
        assert only(result).state["log"] == ["a0", "canned", "c2"]
        assert CALLS == {"a": 1, "c": 1}
        assert result.node_executions == result.report.node_executions == 2

    def test_every_call_gets_an_output_of_its_own(self, open_bench: Open) -> None:
        def changing(state: State) -> dict[str, Any]:
            state["log"].append("changed")
            return {}

        bench = open_bench(line(c=changing))
        mocks = {"b": {"log": ["canned"]}}
        cases = [{"id": name, "state": {"log": []}} for name in "xy"]
        result = run(bench, cases=cases, mocks=mocks)
        assert [cell.state["log"] for cell in result.cells] == [["a0", "canned", "changed"]] * 2
        assert mocks == {"b": {"log": ["canned"]}}

    @pytest.mark.parametrize("sync", [True, False])
    def test_a_function_is_called_with_the_state(self, open_bench: Open, *, sync: bool) -> None:
        def answer(state: State) -> dict[str, Any]:
            (current_workspace() / "mock.txt").write_text("by a mock")
            return {"log": [f"saw {state['log']}"]}

        async def async_answer(state: State) -> dict[str, Any]:
            return answer(state)

        bench = open_bench(line())
        cell = only(run(bench, mocks={"b": answer if sync else async_answer}))
        assert cell.state["log"] == ["a0", "saw ['a0']", "c2"]
        assert list(bench.files(str(cell.execution_id))) == ["mock.txt"]

    def test_checkpointable_values_and_commands(self, open_bench: Open) -> None:
        builder = StateGraph(State)
        builder.add_node("a", body("a"), destinations=("b", "c"))
        builder.add_node("b", body("b"))
        builder.add_node("c", body("c"))
        builder.add_edge(START, "a")
        bench = open_bench(builder)
        mock = Command(goto="c", update={"messages": [AIMessage("hello", id="1")]})
        cell = only(run(bench, mocks={"a": mock}))
        assert cell.state["messages"] == [AIMessage("hello", id="1")]
        assert CALLS == {"c": 1}

    def test_a_mounted_subgraph(self, open_bench: Open) -> None:
        bench = open_bench(line(b=line().compile()))
        cell = only(run(bench, mocks={"b": {"log": ["canned"]}}))
        assert cell.state["log"] == ["a0", "canned", "c2"]
        assert CALLS == {"a": 1, "c": 1}

    def test_a_node_inside_a_subgraph(self, open_bench: Open) -> None:
        bench = open_bench(line(b=line(a=body("x"), b=body("y"), c=body("z")).compile()))
        result = run(bench, mocks={"b|b": {"log": ["canned"]}})
        cell = only(result)
        assert "canned" in cell.state["log"]
        assert CALLS == {"a": 1, "x": 1, "z": 1, "c": 1}
        assert result.node_executions == 4
        found = read_boundaries(bench.session.open_uow, str(cell.execution_id))
        assert [(b.node, b.calls, b.cached) for b in found if b.variant == "mock"] == [
            ("b|b", 0, False)
        ]
        with pytest.raises(NotFoundError, match=r"no node to mock 'b\|nobody'"):
            run(bench, mocks={"b|nobody": {}})
        with pytest.raises(InvalidInputError, match=r"node 'b\|b' cannot be recorded"):
            run(bench, record=["b|b"])

    def test_what_varies_inside_a_mocked_subgraph_is_refused(self, open_bench: Open) -> None:
        bench = open_bench(line(b=line().compile()), "b|b:other")
        with pytest.raises(InvalidInputError, match="node 'b' is mocked and varied"):
            run(bench, {"b|b": "*"}, mocks={"b": {}})

    def test_a_cache_of_langgraph_neither_answers_nor_keeps(self, open_bench: Open) -> None:
        from langgraph.cache.memory import InMemoryCache

        builder = StateGraph(State)
        builder.set_node_defaults(cache_policy=CachePolicy())
        builder.add_node("a", body("a"))
        builder.add_edge(START, "a")
        graph = builder.compile(cache=InMemoryCache())
        bench = open_bench(graph)
        assert only(run(bench)).state["log"] == ["a0"]
        for text in "xy":
            assert only(run(bench, mocks={"a": {"log": [text]}})).state["log"] == [text]
        assert only(run(bench, batch_id="again")).state["log"] == ["a0"]

    def test_prefixes_are_shared_beside_mocks(self, open_bench: Open) -> None:
        bench = open_bench(line(), "c:c1", "c:c2")
        result = run(bench, {"c": "*"}, mocks={"b": {"log": ["canned"]}})
        assert CALLS == {"a": 1, "c": 1, "c1": 1, "c2": 1}
        assert {cell.state["log"][1] for cell in result.cells} == {"canned"}

    def test_marked_and_nothing_is_best(self, open_bench: Open) -> None:
        bench = open_bench(line())
        assert run(bench).best == "baseline"
        result = run(bench, mocks={"b": {}})
        assert (result.best, result.report.mocked) == (None, ("b",))
        execution_id = str(only(result).execution_id)
        with bench.session.open_uow() as uow:
            assert uow.executions.lineage(execution_id)[-1].metadata["mocked"] == ["b"]
        found = {b.node: b for b in read_boundaries(bench.session.open_uow, execution_id)}
        assert (found["b"].variant, found["b"].calls, found["b"].cached) == ("mock", 0, False)
        assert (found["a"].variant, found["a"].calls) == ("original", 1)

    def test_real_and_mocked_cells_never_answer_each_other(self, open_bench: Open) -> None:
        bench = open_bench(line())
        real = run(bench)
        mocked = run(bench, mocks={"b": {"log": ["x"]}})
        other = run(bench, mocks={"b": {"log": ["y"]}})
        assert mocked.plan is not None
        assert mocked.plan.reuse == "mocked project p"
        assert len({real.batch_id, mocked.batch_id, other.batch_id}) == 3
        assert [c.state["log"][1] for r in (real, mocked, other) for c in r.cells] == [
            "b1",
            "x",
            "y",
        ]
        CALLS.clear()
        run(bench), run(bench, mocks={"b": {"log": ["x"]}})
        assert not CALLS
        run(bench, {"b": ["original"]}, mocks={"b": {"log": ["x"]}})  # the same cells: taken over
        assert not CALLS

    def test_one_batch_is_not_both(self, open_bench: Open) -> None:
        bench = open_bench(line())
        run(bench, batch_id="one")
        with pytest.raises(InvalidInputError, match="batch one is a real one"):
            run(bench, batch_id="one", mocks={"b": {}})
        run(bench, batch_id="two", mocks={"b": {"log": ["x"]}})
        with pytest.raises(InvalidInputError, match="batch two has mocked nodes"):
            run(bench, batch_id="two")
        plan = bench.plan(cases=CASES, batch_id="two", mocks={"b": {"log": ["y"]}})
        assert [(c.state, c.changed) for c in plan.cells] == [(CellState.STALE, ("mock b",))]

    def test_an_edit_of_the_mocked_node_changes_nothing(self, open_bench: Open) -> None:
        run(open_bench(line()), batch_id="m", mocks={"b": {}})

        def edited(state: State) -> dict[str, Any]:
            return {"log": ["edited"]}

        plan = open_bench(line(b=edited)).plan(cases=CASES, batch_id="m", mocks={"b": {}})
        assert [cell.state for cell in plan.cells] == [CellState.DONE]

    @pytest.mark.parametrize(
        ("mocks", "kind", "said"),
        [
            ({"nobody": {}}, NotFoundError, "no node to mock 'nobody'"),
            ({"b": {"lgo": []}}, StateError, "the mock of node 'b': state has no key 'lgo'"),
            ({"b": {"n": object()}}, StateError, "the mock of node 'b'"),
            ({"c": {}}, InvalidInputError, "node 'c' is mocked and varied"),
        ],
    )
    def test_refused_before_anything_runs(
        self, open_bench: Open, mocks: Any, kind: type[Exception], said: str
    ) -> None:
        bench = open_bench(line(), "c:c1")
        with pytest.raises(kind, match=said):
            run(bench, {"c": "*"}, mocks=mocks)
        assert not CALLS

    def test_a_local_function_is_refused_where_it_cannot_be_imported(
        self, open_bench: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = open_bench(line())
        monkeypatch.setattr(WorkflowProject, "import_path", "x:project")
        with pytest.raises(InvalidInputError, match=r"mock of node 'b' is .*lambda.*cannot import"):
            bench.batch(cases=CASES, runner="threads", mocks={"b": lambda _: {}})


class TestRecorded:
    def test_replays_what_the_node_returned_and_wrote(self, open_bench: Open) -> None:
        bench = open_bench(line(b=drawing), "c:c1")
        first = run(bench, record=["b"])
        replayed = run(bench, {"c": "*"}, mocks={"b": Recorded()})
        assert CALLS == {"a": 2, "b": 1, "c": 2, "c1": 1}
        drawn = only(first).state["log"][1]
        for cell in replayed.cells:
            assert cell.state["log"][1] == drawn
            files = bench.files(str(cell.execution_id))
            assert files == bench.files(str(only(first).execution_id))
        assert replayed.report.mocked == ("b",)

    def test_what_the_node_result_cache_answered_is_recorded_too(self, open_bench: Open) -> None:
        def keep(state: State) -> dict[str, Any]:
            CALLS["b"] += 1
            (current_workspace() / "kept.txt").write_text("kept")
            return {"log": ["kept"]}

        bench = open_bench(line(a=lambda state: {"log": ["a"]}, b=keep))
        bench.project.cached("b", reads=["log"])
        bench.close()
        run(bench)
        first = only(run(bench, record=["b"], batch_id="rec"))
        assert first.result.node_executions == 2  # the cache answered for b
        replayed = only(run(bench, mocks={"b": Recorded()}))
        assert CALLS["b"] == 1
        assert replayed.state == first.state
        assert list(bench.files(str(replayed.execution_id))) == ["kept.txt"]

    def test_visits_of_a_loop_in_their_order(self, open_bench: Open) -> None:
        builder = line(b=drawing)
        builder.add_conditional_edges("c", lambda s: "b" if len(s["log"]) < 7 else END, ["b", END])
        bench = open_bench(builder, "c:c1")
        first = only(run(bench, record=["b"], batch_id="rec"))
        CALLS.clear()
        result = run(bench, {"c": "*"}, mocks={"b": Recorded("rec")})
        assert CALLS["b"] == 0
        for cell in result.cells:
            assert cell.state["log"][1::2] == first.state["log"][1::2]
            assert len(set(cell.state["log"][1::2])) == 3

    def test_tasks_sent_in_one_step(self, open_bench: Open) -> None:
        builder = StateGraph(State)
        builder.add_node("a", body("a"))
        builder.add_node("b", drawing)
        builder.add_edge(START, "a")
        builder.add_conditional_edges("a", lambda s: [Send("b", s), Send("b", s), "b"], ["b"])
        bench = open_bench(builder)
        first = only(run(bench, record=["b"]))
        replayed = only(run(bench, mocks={"b": Recorded()}))
        assert CALLS["b"] == 3
        assert replayed.state == first.state

    def test_commands(self, open_bench: Open) -> None:
        def choose(state: State) -> Command[str]:
            CALLS["choose"] += 1
            return Command(goto="c", update={"log": ["chose c"]})

        builder = StateGraph(State)
        builder.add_node("a", choose, destinations=("b", "c"))
        builder.add_node("b", body("b"))
        builder.add_node("c", body("c"))
        builder.add_edge(START, "a")
        bench = open_bench(builder)
        first = only(run(bench, record=["a"]))
        assert only(run(bench, mocks={"a": Recorded()})).state == first.state
        assert CALLS == {"choose": 1, "c": 2}

    def test_of_the_same_choices_upstream(self, open_bench: Open) -> None:
        bench = open_bench(line(b=drawing), "a:a1", "c:c1")
        first = {
            c.combination: c.state["log"][1] for c in run(bench, {"a": "*"}, record=["b"]).cells
        }
        assert first["baseline"] != first["a=a1"]
        result = run(bench, {"a": "*", "c": "*"}, mocks={"b": Recorded()})
        for cell in result.cells:
            source = "a=a1" if "a=a1" in cell.combination else "baseline"
            assert cell.state["log"][1] == first[source]
            assert cell.unshared_reason is None

    def test_each_variant_of_the_node_has_its_own(self, open_bench: Open) -> None:
        bench = open_bench(line(b=drawing), "b:b1", "c:c1")
        first = {
            c.combination: c.state["log"][1] for c in run(bench, {"b": "*"}, record=["b"]).cells
        }
        CALLS.clear()
        result = run(bench, {"b": "*", "c": "*"}, mocks={"b": Recorded()})
        assert CALLS == {"a": 1, "c": 2, "c1": 2}
        for cell in result.cells:
            assert (
                cell.state["log"][1] == first["b=b1" if "b=b1" in cell.combination else "baseline"]
            )

    def test_a_choice_that_is_still_open_runs_unshared(self, open_bench: Open) -> None:
        """In a loop a later node is an earlier one too: its choice picks the recording."""
        builder = line(b=drawing)
        builder.add_conditional_edges("c", lambda s: "b" if len(s["log"]) < 5 else END, ["b", END])
        bench = open_bench(builder, "c:c1")
        first = {
            c.combination: c.state["log"]
            for c in run(bench, {"c": "*"}, record=["b"], share_prefixes=False).cells
        }
        CALLS.clear()
        result = run(bench, {"c": "*"}, mocks={"b": Recorded()})
        assert {c.combination: c.state["log"] for c in result.cells} == first
        reasons = {cell.unshared_reason for cell in result.cells}
        assert reasons == {
            "recorded node 'b' was reached before the choices its recording depends on"
        }

    def test_after_an_edit_the_visits_are_those_of_the_new_path(self, open_bench: Open) -> None:
        """What is taken over from an earlier run counts as far as it was taken over."""

        def looping(last: Any, rounds: int) -> StateGraph:
            builder = line(b=drawing, c=last)
            builder.add_conditional_edges(
                "c", lambda s: "b" if len(s["log"]) < rounds else END, ["b", END]
            )
            return builder

        def edited(state: State) -> dict[str, Any]:
            return {"log": ["edited" if len(state["log"]) > 3 else "c2"]}

        first = only(run(open_bench(looping(body("c"), 7)), record=["b"], batch_id="rec"))
        run(open_bench(looping(body("c"), 7)), mocks={"b": Recorded("rec")}, batch_id="m")
        cell = only(run(open_bench(looping(edited, 7)), mocks={"b": Recorded("rec")}, batch_id="m"))
        assert cell.state["log"][1::2] == first.state["log"][1::2]
        assert cell.state["log"][4::2] == ["edited", "edited"]

    def test_cells_done_without_recording_run_again_for_it(self, open_bench: Open) -> None:
        bench = open_bench(line(b=drawing))
        before = only(run(bench)).state
        plan = bench.plan(cases=CASES)
        assert [cell.state for cell in plan.cells] == [CellState.DONE]
        recorded = run(bench, record=["b"])
        assert recorded.plan is not None
        assert [(c.state, c.changed) for c in recorded.plan.cells] == [
            (CellState.STALE, ("recording of b",))
        ]
        assert only(recorded).state != before
        CALLS.clear()
        assert only(run(bench, record=["b"])).state == only(run(bench)).state
        assert not CALLS

    def test_refused_before_anything_runs(self, open_bench: Open) -> None:
        bench = open_bench(line(b=drawing))
        with pytest.raises(NotFoundError, match="no batch that recorded node 'b'"):
            run(bench, mocks={"b": Recorded()})
        run(bench, record=["b"], batch_id="rec")
        with pytest.raises(NotFoundError, match="'nope'; there is: rec"):
            run(bench, mocks={"b": Recorded("nope")})
        CALLS.clear()
        with pytest.raises(InvalidInputError, match="no completed cell of case 'd', repeat 0"):
            run(bench, cases=[{"id": "d", "state": {"log": []}}], mocks={"b": Recorded()})
        with pytest.raises(InvalidInputError, match="no completed cell of case 'c', repeat 1"):
            run(bench, repeats=2, mocks={"b": Recorded()})
        with pytest.raises(InvalidInputError, match="case 'c' had another state in batch rec"):
            run(bench, cases=[{"id": "c", "state": {"log": ["!"]}}], mocks={"b": Recorded()})
        run(bench, cases=[*CASES, {"id": "e", "state": {"log": []}}], batch_id="rec")
        with pytest.raises(InvalidInputError, match="case 'e', repeat 0, without recording"):
            run(bench, cases=[{"id": "e", "state": {"log": []}}], mocks={"b": Recorded()})
        with pytest.raises(InvalidInputError, match="there is nothing of it to record"):
            run(bench, mocks={"b": {}}, record=["b"])
        with pytest.raises(NotFoundError, match="no node to record 'x'"):
            run(bench, record=["x"])

    def test_more_visits_than_recorded_fail_with_a_reason(self, open_bench: Open) -> None:
        looping = line(b=drawing)
        looping.add_conditional_edges("c", lambda s: "b" if len(s["log"]) < 5 else END, ["b", END])
        run(open_bench(line(b=drawing)), record=["b"], batch_id="rec")
        (cell,) = run(open_bench(looping), mocks={"b": Recorded("rec")}).cells
        assert cell.error is not None
        assert cell.error.node == "b"
        assert "visit 2 of recorded node 'b': batch rec visited it in 1 super-step;" in (
            cell.error.message
        )

    def test_goes_on_with_the_right_visit_after_an_interruption(self, open_bench: Open) -> None:
        stop = [False]

        def stopping(state: State) -> dict[str, Any]:
            if stop[0] and len(state["log"]) == 4:
                stop[0] = False
                raise KeyboardInterrupt
            return {"log": ["c"]}

        builder = line(b=drawing, c=stopping)
        builder.add_conditional_edges("c", lambda s: "b" if len(s["log"]) < 7 else END, ["b", END])
        bench = open_bench(builder)
        first = only(run(bench, record=["b"]))
        stop[0] = True
        with pytest.raises(KeyboardInterrupt):
            run(bench, mocks={"b": Recorded()})
        CALLS.clear()
        assert only(run(bench, mocks={"b": Recorded()})).state == first.state
        assert CALLS["a"] == 0
