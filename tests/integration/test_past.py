"""Going on from what earlier runs recorded: after an edit, with more variants, in other batches."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from graphs import CALLS, State, make_body
from graphs import Body as B
from langgraph.graph import END, START, StateGraph

from wtb_prefect import TestBench, WorkflowProject, terminal
from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.application.read_history import read_boundaries
from wtb_prefect.sdk.batch_result import BatchResult, Cell

CASE = {"id": "c", "state": {"log": ["in"]}, "expected": 3}
Open = Callable[..., TestBench]


def length(state: Mapping[str, Any], expected: Any) -> bool:
    return len(state["log"]) > expected


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Open]:
    """Opens benches of one project over one ledger, or over one of its own."""
    opened = []

    def make(
        graph: Any,
        variants: Mapping[tuple[str, str], Any] | None = None,
        ledger: str = "w",
        evaluators: tuple[Callable[..., Any], ...] = (length,),
        **options: Any,
    ) -> TestBench:
        project = WorkflowProject(
            "p", graph, db_path=tmp_path / f"{ledger}.db", output_dir=tmp_path / ledger, **options
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


def run(bench: TestBench, matrix: Any = None, **options: Any) -> Counter[str]:
    """A batch on the inline runner; gives the bodies that ran, by node."""
    CALLS.take()
    result = bench.batch(matrix, runner="inline", **{"cases": [CASE], **options})
    calls = CALLS.take()
    assert result.node_executions == calls.total()
    return calls


def line(*names: str, **edits: Any) -> StateGraph:
    """Nodes one after another; `b=1` is the first edit of b, `b=fn` other code."""
    builder = StateGraph(State)
    for name in names:
        code = edits.get(name, 0)
        body = make_body(B(name, edit=code)) if isinstance(code, int) else code
        builder.add_node(name, body)
    builder.add_edge(START, names[0])
    for pair in itertools.pairwise(names):
        builder.add_edge(*pair)
    return builder


def variants(*pairs: str, **edits: int) -> dict[tuple[str, str], Any]:
    """`"d:x"` -> the variant x of d; `d=1` edits those of d."""
    found = [pair.split(":") for pair in pairs]
    return {(n, name): make_body(B(n, name, edit=edits.get(n, 0))) for n, name in found}


def seen(bench: TestBench, result: BatchResult) -> dict[tuple[str, str, int], Any]:
    """All that can be seen of the cells of a batch."""
    return {(c.combination, c.case_id, c.repeat): outcome(bench, c) for c in result.cells}


def outcome(bench: TestBench, cell: Cell) -> Any:
    assert cell.execution_id is not None
    history = bench.history(cell.execution_id)
    with bench.session.open_uow() as uow:
        line_ = uow.executions.lineage(cell.execution_id)
    files = {path: text_of(bench, m.blob_id) for path, m in bench.files(cell.execution_id).items()}
    error = cell.error and (cell.error.node, cell.error.type, cell.error.message)
    own = cell.result.node_executions
    assert len({e.execution_id for e in line_}) == len(line_)
    steps = [sorted(point.nodes) for point in history if point.nodes]
    return (cell.status, cell.state, files, steps, dict(cell.scores), error, own)


def text_of(bench: TestBench, blob: str) -> str:
    return (bench.project.locations.output_dir / "blobs/objects" / blob[:2] / blob[2:]).read_text()


SCRATCH = itertools.count()


def check_scratch(
    open_bench: Open, bench: TestBench, opened: tuple[Any, ...], matrix: Any = None, **request: Any
) -> None:
    """The batch as it is now is what an empty ledger gives; `opened` as given to `open_bench`."""
    request = {"cases": [CASE], "runner": "inline", **request}
    now = seen(bench, bench.batch(matrix, **request))
    graph, *code = opened
    fresh = open_bench(graph, code[0] if code else None, f"scratch{next(SCRATCH)}", *code[1:])
    assert now == seen(fresh, fresh.batch(matrix, **request))


SIX = tuple("abcdef")
TWO_LAST = {"e": "*", "f": "*"}
CODE = variants("e:x", "f:x")


@pytest.mark.parametrize(
    ("edit", "bodies"),
    [
        # of the cells that use it: the leaves, whose trunks are gone on from at their gates
        ({"f": 1}, {"f": 2}),
        ({"e": 1}, {"e": 1, "f": 2}),
        ({"c": 1}, {"c": 1, "d": 1, "e": 2, "f": 4}),
        ({"a": 1}, {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2, "f": 4}),
    ],
)
def test_an_edited_node_runs_again_with_what_follows(
    open_bench: Open, edit: dict[str, int], bodies: dict[str, int]
) -> None:
    """In a line of six with a split at the last two: exactly these bodies, and the same results."""
    run(open_bench(line(*SIX), CODE), TWO_LAST)
    bench = open_bench(line(*SIX, **edit), CODE)
    assert run(bench, TWO_LAST) == bodies
    assert run(bench, TWO_LAST) == {}
    check_scratch(open_bench, bench, (line(*SIX, **edit), CODE), TWO_LAST)


def test_an_edited_variant_runs_again_with_what_follows(open_bench: Open) -> None:
    """Only its own cells are stale; the trunk before it is the one that is there."""
    run(open_bench(line(*SIX), CODE), TWO_LAST)
    code = variants("e:x", "f:x", e=1)
    bench = open_bench(line(*SIX), code)
    plan = bench.plan(TWO_LAST, [CASE])
    assert plan.counts[CellState.STALE] == 2
    assert [(k.changed, k.cells, k.again) for k in plan.stale] == [
        (("node e",), 2, "run again from e")
    ]
    assert run(bench, TWO_LAST) == {"e": 1, "f": 2}
    check_scratch(open_bench, bench, (line(*SIX), code), TWO_LAST)


def test_edits_one_after_another_each_take_over_what_is_the_same(open_bench: Open) -> None:
    """Forks of forks of earlier runs; and code that comes back finds its own results again."""
    run(open_bench(line(*SIX), CODE), TWO_LAST)
    assert run(open_bench(line(*SIX, d=1), CODE), TWO_LAST) == {"d": 1, "e": 2, "f": 4}
    bench = open_bench(line(*SIX, d=1, f=1), CODE)
    assert run(bench, TWO_LAST) == {"f": 2}
    check_scratch(open_bench, bench, (line(*SIX, d=1, f=1), CODE), TWO_LAST)
    assert run(open_bench(line(*SIX), CODE), TWO_LAST) == {}


def test_a_node_that_never_varied_gets_a_variant(open_bench: Open) -> None:
    """What comes before it is not run again, in a batch of its own and in one that is extended."""
    for name in (None, "mine"):
        bench = open_bench(line(*SIX), CODE)
        first = bench.batch(TWO_LAST, [CASE], runner="inline", batch_id=name)
        assert first.node_executions == 4 + 2 + 4
        wider = open_bench(line(*SIX), {**CODE, **variants("c:x")})
        matrix = {**TWO_LAST, "c": "*"}
        assert run(wider, matrix, batch_id=name) == {"c": 1, "d": 1, "e": 2, "f": 4}
        check_scratch(
            open_bench, wider, (line(*SIX), {**CODE, **variants("c:x")}), matrix, batch_id=name
        )


def test_a_case_or_a_repeat_more_runs_alone(open_bench: Open) -> None:
    """It has no past; what is there is left as it is."""
    bench = open_bench(line(*SIX), CODE)
    whole = run(bench, TWO_LAST)
    more = [CASE, {"id": "c2", "state": {"log": ["other"]}, "expected": 3}]
    assert run(bench, TWO_LAST, cases=more) == whole
    assert run(bench, TWO_LAST, cases=more, repeats=2) == whole + whole
    check_scratch(open_bench, bench, (line(*SIX), CODE), TWO_LAST, cases=more, repeats=2)


def test_scores_are_made_again_where_only_they_can_change(open_bench: Open) -> None:
    """A corrected expectation and an edited evaluator run no node."""

    def stricter(state: Mapping[str, Any], expected: Any) -> bool:
        return len(state["log"]) > 100 * expected

    stricter.__name__ = "length"
    bench = open_bench(line("a", "b"))
    run(bench)
    assert bench.results().cells[0].scores == {"length": 0.0}
    corrected = [{**CASE, "expected": 2}]
    kinds = bench.plan(None, corrected).stale
    assert [(k.changed, k.again) for k in kinds] == [(("expected",), "scored again")]
    assert run(bench, cases=corrected) == {}
    assert bench.results().cells[0].scores == {"length": 1.0}
    other = open_bench(line("a", "b"), evaluators=(stricter,))
    kinds = other.plan(None, corrected).stale
    assert [(k.changed, k.again) for k in kinds] == [(("evaluator length",), "scored again")]
    assert run(other, cases=corrected) == {}
    assert other.results().cells[0].scores == {"length": 0.0}


@pytest.mark.parametrize("what", ["base workspace", "case", "graph"])
def test_what_every_node_may_depend_on_starts_again(
    open_bench: Open, tmp_path: Path, what: str
) -> None:
    """Other files, another state or other edges: nothing of the past is the same."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "doc.txt").write_text("one")
    graph, case = line("a", "b"), {**CASE}
    run(open_bench(graph, workspace=base))
    if what == "base workspace":
        (base / "doc.txt").write_text("two")
    elif what == "case":
        case["state"] = {"log": ["other"]}
    else:
        graph = line("a", "b")
        graph.add_conditional_edges("b", lambda state: END, [END])
    bench = open_bench(graph, workspace=base)
    kinds = bench.plan(None, [case]).stale
    assert [(k.changed, k.again) for k in kinds] == [((what,), "run again from the start")]
    assert run(bench, cases=[case]) == {"a": 1, "b": 1}


def looping(**edits: int) -> StateGraph:
    """a b a b | c a b: c only after the second visit of b."""
    builder = line("a", "b", **edits)
    builder.add_node("c", make_body(B("c", edit=edits.get("c", 0))))
    builder.add_edge("c", "a")

    def route(state: State) -> str:
        visits = state["visits"]["b"]
        return END if visits >= 3 else "c" if visits == 2 else "a"

    builder.add_conditional_edges("b", route, ["a", "c", END])
    return builder


def test_of_a_loop_only_the_rounds_before_the_edited_node_are_kept(open_bench: Open) -> None:
    """Its first visit decides."""
    assert run(open_bench(looping())) == {"a": 3, "b": 3, "c": 1}
    bench = open_bench(looping(c=1))
    assert run(bench) == {"c": 1, "a": 1, "b": 1}
    check_scratch(open_bench, bench, (looping(c=1),))
    assert run(open_bench(looping(b=1))) == {"a": 2, "b": 3, "c": 1}


def fan(**edits: int) -> StateGraph:
    """a -> (b | s) -> j -> k"""
    builder = StateGraph(State)
    for name in "absjk":
        builder.add_node(name, make_body(B(name, edit=edits.get(name, 0))))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("a", "s")
    builder.add_edge(["b", "s"], "j")
    builder.add_edge("j", "k")
    return builder


def test_siblings_of_a_changed_node_run_again_with_it(open_bench: Open) -> None:
    """A super-step is gone on from as a whole; at a gate what siblings finished comes along."""
    code = variants("b:x")
    run(open_bench(fan(), code), {"b": "*"})
    bench = open_bench(fan(k=1), code)
    assert run(bench, {"b": "*"}) == {"k": 2}
    check_scratch(open_bench, bench, (fan(k=1), code), {"b": "*"})
    bench = open_bench(fan(k=1), variants("b:x", b=1))
    assert run(bench, {"b": "*"}) == {"b": 1, "j": 1, "k": 1}  # s is pending in the trunk
    bench = open_bench(fan(k=1, s=1), variants("b:x", b=1))
    assert run(bench, {"b": "*"}) == {"s": 1, "b": 2, "j": 2, "k": 2}
    check_scratch(open_bench, bench, (fan(k=1, s=1), variants("b:x", b=1)), {"b": "*"})


def test_a_cell_that_never_meets_what_changed_runs_nothing(open_bench: Open) -> None:
    """It is stale, because nobody asked where it went; its whole past is the same."""

    def away(**edits: int) -> StateGraph:
        builder = line("a", "b")
        builder.add_node("c", make_body(B("c", edit=edits.get("c", 0))))
        builder.add_conditional_edges("b", lambda state: END, ["c", END])
        return builder

    run(open_bench(away()))
    bench = open_bench(away(c=1))
    assert bench.plan(None, [CASE]).counts[CellState.STALE] == 1
    assert run(bench) == {}
    check_scratch(open_bench, bench, (away(c=1),))


def test_failed_cells_go_on_before_the_node_that_failed(open_bench: Open) -> None:
    """Its code is corrected: what ran before it is kept."""
    bad = make_body(B("c", raises=True))
    assert run(open_bench(line(*"abcd", c=bad))) == {"a": 1, "b": 1, "c": 1}
    bench = open_bench(line(*"abcd"))
    assert run(bench) == {"c": 1, "d": 1}
    check_scratch(open_bench, bench, (line(*"abcd"),))


def test_a_named_batch_neither_takes_nor_gives(open_bench: Open) -> None:
    """Draws of its own: only its own past counts, and no other batch sees it."""
    run(open_bench(line("a", "b", "c")))
    bench = open_bench(line("a", "b", "c", c=1))
    whole = {"a": 1, "b": 1, "c": 1}
    assert run(bench, batch_id="mine") == whole
    assert run(open_bench(line("a", "b", "c", c=2)), batch_id="mine") == {"c": 1}
    assert run(open_bench(line("a", "b", "c", b=1)), batch_id="other") == whole
    assert run(open_bench(line("a", "b", "c", b=1))) == {"b": 1, "c": 1}


def test_unshared_runs_begin_at_the_start_and_are_no_past(open_bench: Open) -> None:
    """To be independent is what they are for."""
    run(open_bench(line("a", "b")), share_prefixes=False)
    bench = open_bench(line("a", "b", b=1))
    assert bench.plan(None, [CASE], share_prefixes=False).stale[0].again == (
        "run again from the start"
    )
    assert run(bench) == {"a": 1, "b": 1}
    assert run(open_bench(line("a", "b", b=2)), share_prefixes=False) == {"a": 1, "b": 1}


def test_code_that_cannot_be_read_is_the_same_within_its_batch_only(open_bench: Open) -> None:
    """A captured client may be another one in another batch."""
    client = object()

    def calls(state: State) -> dict[str, Any]:
        CALLS.add("b")
        return {"log": [type(client).__name__]}

    run(open_bench(line("a", "b", "c", b=calls)))
    # The same batch, whose id is made from what is asked for:
    assert run(open_bench(line("a", "b", "c", b=calls, c=1))) == {"c": 1}
    bench = open_bench(line("a", "b", "c", b=calls, c=1), variants("c:x"))
    assert run(bench, {"c": "*"}) == {"b": 1, "c": 2}


def test_what_no_checkpoint_gives_back_is_not_gone_on_from(open_bench: Open) -> None:
    """A record that says so ends the search there; the one before it is taken."""
    bench = open_bench(line(*"abcd"))
    run(bench)
    with sqlite3.connect(bench.project.locations.output_dir.with_suffix(".db")) as ledger:
        ledger.execute("UPDATE checkpoint_files SET exact = 0 WHERE nodes LIKE '%c%'")
    ledger.close()
    assert run(open_bench(line(*"abcd", d=1))) == {"c": 1, "d": 1}


def test_checkpoints_that_were_cleared_away_are_not_missed(open_bench: Open) -> None:
    """The next best is taken, or the start."""
    bench = open_bench(line(*"abcd"))
    run(bench)
    cell = bench.results().cells[0]
    bench.session.checkpoints.delete(f"wtb-{cell.execution_id}")
    assert run(open_bench(line(*"abcd", d=1))) == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_history_over_a_past_that_went_on_elsewhere(open_bench: Open) -> None:
    """Checkpoints, states, files, code and costs are those behind the new execution."""
    first = open_bench(line(*"abcd"))
    run(first)
    old = first.results().cells[0].execution_id
    bench = open_bench(line(*"abcd", c=1))
    run(bench)
    cell = bench.results().cells[0]
    history = bench.history(cell.execution_id)
    assert [node for point in history for node in point.nodes] == list("abcd")
    assert [point.next for point in history if point.nodes] == [("b",), ("c",), ("d",), ()]
    assert [p.execution_id == old for p in history if p.nodes] == [True, True, False, False]
    states = [bench.state(cell.execution_id, p.checkpoint_id)["log"] for p in history if p.nodes]
    assert states[1] == ["in", "a:original:1", "b:original:2"]
    assert states[2][-1] == "c:original/1:3"
    found = {p.nodes: sorted(bench.files(cell.execution_id, p.checkpoint_id)) for p in history}
    assert found["b",] == ["nodes/a.txt", "nodes/b.txt"]
    visits = read_boundaries(bench.session.open_uow, cell.execution_id)
    assert [(visit.node, visit.execution_id == old) for visit in visits] == [
        ("a", True),
        ("b", True),
        ("c", False),
        ("d", False),
    ]
    assert cell.result.node_executions == 4
    report = bench.results().report
    assert (report.node_executions, report.unshared_node_executions) == (2, 4)
    assert cell.duration > 0


def test_kept_although_stale(open_bench: Open) -> None:
    """Not run, shown with what changed; failed ones run; without the request they all do."""
    bad = make_body(B("b", "bad", raises=True))
    run(open_bench(line("a", "b"), {("b", "bad"): bad}), {"b": "*"})
    bench = open_bench(line("a", "b", a=1), variants("b:bad"))
    plan = bench.plan({"b": "*"}, [CASE], keep_stale=True)
    assert (plan.counts[CellState.KEPT], plan.counts[CellState.STALE]) == (1, 1)
    assert run(bench, {"b": "*"}, keep_stale=True) == {"a": 1, "b": 1}
    found = {cell.combination: cell for cell in bench.results().cells}
    assert found["baseline"].stale == ("node a",)
    assert found["baseline"].state["log"][1] == "a:original:1"
    assert found["b=bad"].stale == ()
    assert found["b=bad"].state["log"][1] == "a:original/1:1"
    assert terminal.cell_line(found["baseline"].result) == "length=0.000  changed since: node a"
    again = bench.plan({"b": "*"}, [CASE], keep_stale=True)
    assert terminal.plan_lines(again)[1:3] == [
        "  2 combinations x 1 case x 1 repeat = 2 cells: 1 done, 1 stale but kept",
        "  stale, and kept as it is, because these changed: node a (1 cell)",
    ]
    assert terminal.plan_lines(bench.plan({"b": "*"}, [CASE]))[2] == (
        "  stale because these changed: node a (1 cell): run again from a"
    )
    assert run(bench, {"b": "*"}, keep_stale=True) == {}
    assert run(bench, {"b": "*"}) == {"b": 1}
    assert {cell.stale for cell in bench.results().cells} == {()}
    check_scratch(open_bench, bench, (line("a", "b", a=1), variants("b:bad")), {"b": "*"})


def test_a_kept_cell_whose_code_is_back_is_no_longer_stale(open_bench: Open) -> None:
    run(open_bench(line("a")))
    run(open_bench(line("a", a=1)), keep_stale=True)
    bench = open_bench(line("a"))
    assert bench.results().cells[0].stale == ("node a",)
    assert run(bench) == {}
    assert bench.results().cells[0].stale == ()
