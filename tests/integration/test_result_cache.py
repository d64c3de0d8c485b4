"""The node result cache: as exact as no cache, never stale, and once however many want it."""

from __future__ import annotations

import json
import logging
import operator
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from generated.compare import _seen
from graphs import CALLS, State, combinations, make_body, requests, run_alone, tree_size
from graphs import Body as B
from hypothesis import HealthCheck, Phase, given, settings
from langchain_core.messages import AIMessage
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel
from test_fork_tree import line, text_of, variants

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.errors import GraphError, InvalidInputError, NotFoundError
from wtb_prefect.infrastructure.workflow.body_context import current_workspace
from wtb_prefect.sdk.batch_result import BatchResult

EXAMPLES = int(os.environ.get("WTB_FUZZ_EXAMPLES", "0"))

Open = Callable[..., TestBench]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Open]:
    """Opens benches of one project over one ledger; `cached` is node -> keys it reads."""
    opened = []

    def make(
        graph: Any,
        cached: dict[str, list[str]],
        codes: dict[tuple[str, str], Any] | None = None,
        where: str = "one",
        **options: Any,
    ) -> TestBench:
        folder = tmp_path / where
        project = WorkflowProject(
            "p", graph, db_path=folder / "w.db", output_dir=folder / "out", **options
        )
        for (node, name), code in (codes or {}).items():
            project.variant(node, name, code)
        for node, reads in cached.items():
            project.cached(node, reads)
        opened.append(TestBench(project))
        CALLS.take()
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


def cases(*ids: str, **state: Any) -> list[dict[str, Any]]:
    return [{"id": name, "state": {"log": ["in"], **state}} for name in ids]


def run(bench: TestBench, given: Any, matrix: Any = None, **options: Any) -> BatchResult:
    """A batch on the inline runner whose count of bodies is that of the nodes themselves."""
    result = bench.batch(matrix=matrix, cases=given, runner="inline", **options)
    assert result.node_executions == CALLS.take().total()
    return result


def answers(bench: TestBench, result: BatchResult) -> dict[Any, Any]:
    return {
        (c.case_id, c.repeat, c.combination): (
            *_seen(bench, c),
            bench.files(c.execution_id),
            dict(c.scores),
        )
        for c in result.cells
    }


# --- Exact ----------------------------------------------------------------------------------------


class Files(TypedDict, total=False):
    corpus: str
    question: str
    parts: Annotated[list[str], operator.add]
    answer: str


def prepare(state: Files) -> Files:
    """Removes, replaces, links, and makes a file where a folder was."""
    CALLS.add("prepare")
    folder = current_workspace()
    shutil.rmtree(folder / "old")
    (folder / "old").write_text("a file now")
    (folder / "gone.txt").unlink()
    (folder / "new/deep").mkdir(parents=True)
    (folder / "new/deep/file.bin").write_bytes(bytes(range(128)))
    (folder / "run.sh").write_text("#!")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("new/deep")
    return {"parts": [state["corpus"], *sorted(p.name for p in folder.iterdir())]}


def index(state: Files) -> Files:
    CALLS.add("index")
    folder = current_workspace()
    (folder / "link").unlink()
    (folder / "index.txt").write_text(",".join(state["parts"]))
    return {"parts": [str((folder / "old").is_file())]}


def answer(state: Files) -> Files:
    CALLS.add("answer")
    folder = current_workspace()
    (folder / "answer.txt").write_text(state["question"])
    return {"answer": f"{state['question']}: {(folder / 'index.txt').read_text()}"}


def answer_shortly(state: Files) -> Files:
    return {"answer": answer(state)["answer"][:5]}


def files_graph() -> StateGraph[Any]:
    return line(
        "prepare",
        "index",
        "answer",
        schema=Files,
        bodies={"prepare": prepare, "index": index, "answer": answer},
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    (base / "old/sub").mkdir(parents=True)
    (base / "old/sub/x.txt").write_text("x")
    (base / "gone.txt").write_text("gone")
    (base / "kept.txt").write_text("kept")
    return base


def questions(*names: str, corpus: str = "c") -> list[dict[str, Any]]:
    return [{"id": n, "state": {"question": n, "corpus": corpus, "parts": []}} for n in names]


CACHED = {"prepare": ["corpus"], "index": ["parts"]}
SHORT = {("answer", "short"): answer_shortly}


def test_equal_to_a_run_without_in_state_files_path_and_scores(
    open_bench: Open, base: Path
) -> None:
    """Deleted, replaced and executable files, links, and a file in a folder's place included."""
    asked = {"given": questions("a", "b", "c"), "matrix": {"answer": "*"}, "repeats": 2}
    plain = open_bench(files_graph, {}, SHORT, where="plain", workspace=base)
    bench = open_bench(files_graph, CACHED, SHORT, workspace=base)
    for known in (plain, bench):
        known.project.evaluator(lambda state: len(state["answer"]), name="length")
    expected, found = run(plain, **asked), run(bench, **asked)
    assert answers(bench, found) == answers(plain, expected)
    assert (expected.node_executions, expected.cache_hits) == (6 * (2 + 2), 0)
    assert (found.node_executions, found.cache_hits) == (2 + 6 * 2, 5 * 2)
    assert found.report.unshared_node_executions == expected.report.unshared_node_executions == 36
    assert {cell.result.cache_hits for cell in found.cells} == {0, 2}
    for cell in found.cells:
        files = bench.files(cell.execution_id)
        assert sorted(files) == sorted(plain.files(expected.cells[0].execution_id))
        assert (files["run.sh"].mode, "link" in files) == (0o755, False)


def test_used_in_a_folder_that_is_made_already(open_bench: Open, base: Path) -> None:
    """The node before asks for the folder: the change is made in it, and the next node sees it."""

    def first(state: Files) -> Files:
        CALLS.add("first")
        (current_workspace() / "mine.txt").write_text("mine")
        return {}

    bodies = {"first": first, "prepare": prepare, "index": index, "answer": answer}
    graph = line(*bodies, schema=Files, bodies=bodies)
    plain = open_bench(graph, {}, where="plain", workspace=base)
    bench = open_bench(graph, CACHED, workspace=base)
    expected = run(plain, questions("a", "b"))
    found = run(bench, questions("a", "b"))
    assert answers(bench, found) == answers(plain, expected)
    assert (found.node_executions, found.cache_hits) == (4 + 2, 2)


def test_a_hit_is_a_boundary_without_a_call(open_bench: Open, base: Path) -> None:
    bench = open_bench(files_graph, CACHED, workspace=base)
    result = run(bench, questions("a", "b"), max_parallel=1)
    boundaries = {}
    with bench.session.open_uow() as uow:
        for cell in result.cells:
            boundaries[cell.case_id] = uow.node_boundaries.list(cell.execution_id)
        kept = uow.executions.get(result.cells[1].execution_id)
    assert [(b.node, b.cached, b.calls) for b in boundaries["a"]] == [
        ("prepare", False, 1),
        ("index", False, 1),
        ("answer", False, 1),
    ]
    assert [(b.node, b.cached, b.calls) for b in boundaries["b"]] == [
        ("prepare", True, 0),
        ("index", True, 0),
        ("answer", False, 1),
    ]
    assert all(b.exit_checkpoint_id for found in boundaries.values() for b in found)
    assert (kept.node_executions, kept.cache_hits) == (1, 2)


def test_generated_graphs_are_exact_with_every_node_cached() -> None:
    """Two batches over one ledger against plain LangGraph; every visit is a body or a hit."""
    hits = []
    memory = Path("/dev/shm")
    stores = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))

    @settings(
        max_examples=EXAMPLES or 15,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def check(request: Any) -> None:
        folder = Path(tempfile.mkdtemp(dir=stores))
        wanted = combinations(request.matrix, request.variants)
        alone = {
            name: run_alone(request, choices, folder / str(number))
            for number, (name, choices) in enumerate(wanted.items())
        }
        bodies = tree_size([(wanted[name], ran.steps) for name, ran in alone.items()])
        project = request.project(folder.name, stores / "all")
        for node in request.blueprint.bodies:
            project.cached(node, ["log"])
        CALLS.take()
        with TestBench(project) as bench:
            for batch in ("first", "second"):
                result = run(bench, cases("c"), request.matrix, batch_id=f"{folder.name}-{batch}")
                assert result.node_executions + result.cache_hits == bodies
                hits.append(result.cache_hits)
                for cell in result.cells:
                    state, files, steps, status, _ = _seen(bench, cell)
                    ran = alone[cell.combination]
                    assert status == ("failed" if ran.failed else "completed")
                    if not ran.failed:
                        assert (state, files, steps) == (ran.state, ran.files, ran.steps)

    try:
        check()
    finally:
        shutil.rmtree(stores)
    assert sum(hits[1::2]) > 3 * len(hits)


# --- Never stale ----------------------------------------------------------------------------------

LOGGED = {"a": ["log"], "b": ["log"]}


def test_shared_by_batches_cases_combinations_and_repeats(open_bench: Open) -> None:
    """A batch with a name of its own shares too: the node was declared as deterministic."""
    bench = open_bench(line(*"ab"), LOGGED, variants("b:x"))
    assert run(bench, cases("1")).node_executions == 2
    again = run(bench, cases("2", "3"), {"b": "*"}, repeats=2, batch_id="mine")
    assert (again.node_executions, again.cache_hits) == (1, 4 * 3 - 1)
    without = run(bench, cases("2"), batch_id="other", use_cache=False)
    assert (without.node_executions, without.cache_hits) == (2, 0)


def test_edited_code_key_or_files_miss(open_bench: Open, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "file").write_text("1")
    first = open_bench(line(*"ab"), LOGGED, workspace=base)
    run(first, cases("1"))
    edited = {"a": make_body(B("a", "other")), "b": make_body(B("b"))}
    second = open_bench(line(*"ab", bodies=edited), LOGGED, workspace=base)
    assert run(second, cases("2")).cache_hits == 0
    bench = open_bench(line(*"ab"), LOGGED, workspace=base)
    assert run(bench, [{"id": "3", "state": {"log": ["else"]}}]).cache_hits == 0
    assert run(bench, cases("4")).cache_hits == 2
    (base / "file").write_text("2")
    assert run(bench, cases("5")).cache_hits == 0
    (base / "file").chmod(0o600)
    assert run(bench, cases("6")).cache_hits == 0
    case = {**cases("7")[0], "files": {"added": "x"}}
    assert run(bench, [case]).cache_hits == 0
    (base / "file").unlink()
    (base / "file").symlink_to("2")
    assert run(bench, cases("8")).cache_hits == 0


@pytest.mark.parametrize("read", ["state['last']", "state.get('last')", "'last' in state"])
def test_reading_a_key_that_is_not_declared_fails_the_cell(open_bench: Open, read: str) -> None:
    def a(state: State) -> dict[str, Any]:
        CALLS.add("a")
        return {"log": [str(eval(read))]}

    bench = open_bench(line("a", bodies={"a": a}), {"a": ["log"]})
    for options in ({}, {"use_cache": False}):
        [cell] = run(bench, cases("1", last="x"), batch_id=f"b{len(options)}", **options).cells
        assert cell.status == "failed"
        assert cell.error is not None
        assert (cell.error.node, cell.error.type) == ("a", "StateError")
        assert "reads=['log', 'last']" in cell.error.message
    bench = open_bench(line("a", bodies={"a": a}), {"a": ["log", "last"]})
    assert run(bench, cases("1", last="x"), batch_id="right").cells[0].status == "completed"


def test_code_that_cannot_be_identified_is_shared_within_its_batch_only(open_bench: Open) -> None:
    client = object()

    def a(state: State) -> dict[str, Any]:
        CALLS.add("a")
        return {"log": [type(client).__name__]}

    bench = open_bench(line("a", bodies={"a": a}), {"a": []})
    first = run(bench, cases("1", "2"), batch_id="first")
    assert (first.node_executions, first.cache_hits) == (1, 1)
    second = run(bench, cases("1", "2"), batch_id="second")
    assert (second.node_executions, second.cache_hits) == (1, 1)


def test_one_variant_may_be_declared(open_bench: Open) -> None:
    bench = open_bench(line(*"ab"), {}, variants("b:x"))
    bench.project.cached("b", reads=["log"], variant="x")
    result = run(bench, cases("1", "2"), {"b": "*"})
    assert (result.node_executions, result.cache_hits) == (2 + 2 + 1, 1)


def test_names_that_do_not_exist_are_refused(open_bench: Open) -> None:
    with pytest.raises(NotFoundError, match="node to be cached 'z'; there is: a, b"):
        open_bench(line(*"ab"), {"z": []}).plan(cases=cases("1"))
    with pytest.raises(NotFoundError, match="state key read by node 'a' 'lgo'; there is: last"):
        open_bench(line(*"ab"), {"a": ["lgo"]}).plan(cases=cases("1"))
    bench = open_bench(line(*"ab"), {}, variants("b:x"))
    bench.project.cached("b", [], variant="y")
    with pytest.raises(NotFoundError, match="variant of node 'b' 'y'; there is: original, x"):
        bench.plan(cases=cases("1"))
    with pytest.raises(InvalidInputError, match="'b=y' is declared as cached already"):
        bench.project.cached("b", ["log"], variant="y")
    with pytest.raises(InvalidInputError, match="list of state keys"):
        bench.project.cached("a", "log")
    mounted = line("s", bodies={"s": line(*"ab").compile()})
    with pytest.raises(GraphError, match="'s' is or calls a subgraph"):
        open_bench(mounted, {"s": ["log"]}).plan(cases=cases("1"))


# --- What is not kept -----------------------------------------------------------------------------


class Odd(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    value: Any


def odd(code: Callable[[Any], Any], reads: str = "log") -> tuple[StateGraph[Any], Any]:
    def a(state: Odd) -> Any:
        CALLS.add("a")
        return code(state)

    return line("a", schema=Odd, bodies={"a": a}), {"a": [reads]}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (lambda _: {"value": (1, 2)}, "what it returns['value'] is a tuple"),
        (lambda state: state["log"].append("x") or {"value": 1}, "changes its input in place"),
    ],
)
def test_what_does_not_come_back_as_it_was_is_run_each_time(
    open_bench: Open, code: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    graph, cached = odd(code)
    bench = open_bench(graph, cached)
    with caplog.at_level(logging.WARNING, "wtb_prefect.cache"):
        result = run(bench, cases("1", "2", "3"))
    assert (result.node_executions, result.cache_hits) == (3, 0)
    assert [record.getMessage() for record in caplog.records if why in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]


def test_a_node_that_fails_is_tried_by_each(open_bench: Open) -> None:
    def fails(state: Odd) -> Any:
        raise ValueError("no")

    graph, cached = odd(fails)
    result = run(open_bench(graph, cached), cases("1", "2", "3"))
    assert {cell.status for cell in result.cells} == {"failed"}
    assert (result.node_executions, result.cache_hits) == (3, 0)


def test_an_update_the_graph_refuses_is_not_kept(open_bench: Open) -> None:
    """The body ends, the step does not: nobody may wait for it for ever."""
    graph, cached = odd(lambda _: ["no update"])
    result = run(open_bench(graph, cached), cases("1", "2", "3"))
    assert {cell.error.type for cell in result.cells if cell.error} == {"InvalidUpdateError"}
    assert (result.node_executions, result.cache_hits) == (3, 0)


def test_a_second_attempt_is_neither_answered_nor_kept(open_bench: Open) -> None:
    """What the first one left in the folder may be part of the result."""
    tries = []

    def a(state: State) -> dict[str, Any]:
        CALLS.add("a")
        tries.append(1)
        (current_workspace() / f"try-{len(tries)}").write_text("x")
        if len(tries) == 1:
            raise ConnectionError("not now")
        return {"log": ["a"]}

    builder = StateGraph(State)
    builder.add_node("a", a, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False))
    builder.add_edge(START, "a")
    bench = open_bench(builder, {"a": ["log"]})
    first = run(bench, cases("1"))
    assert sorted(bench.files(first.cells[0].execution_id)) == ["try-1", "try-2"]
    second = run(bench, cases("2"))
    assert (second.node_executions, second.cache_hits) == (1, 0)
    assert sorted(bench.files(second.cells[0].execution_id)) == ["try-3"]
    assert run(bench, cases("3")).cache_hits == 1


def test_nodes_that_run_beside_others_simply_run(open_bench: Open) -> None:
    builder = line(*"ab")
    builder.add_node("c", make_body(B("c")))
    builder.add_edge("a", "c")
    bench = open_bench(builder, {"a": ["log"], "b": ["log"], "c": ["log"]})
    result = run(bench, cases("1", "2"))
    assert (result.node_executions, result.cache_hits) == (1 + 4, 1)


def test_commands_and_sends_are_kept_as_they_are(open_bench: Open) -> None:
    class Routed(TypedDict, total=False):
        log: Annotated[list[Any], operator.add]

    def a(state: Routed) -> Command[Any]:
        CALLS.add("a")
        sends = [Send("b", {"log": [n]}) for n in range(2)]
        return Command(update={"log": ["a"]}, goto=sends)

    def b(state: Routed) -> Routed:
        CALLS.add("b")
        return {"log": [f"b{state['log'][0]}"]}

    builder = StateGraph(Routed)
    builder.add_node("a", a, destinations=("b",))
    builder.add_node("b", b)
    builder.add_edge(START, "a")
    result = run(open_bench(builder, {"a": ["log"]}), cases("1", "2"))
    assert [cell.state["log"] for cell in result.cells] == [["in", "a", "b0", "b1"]] * 2
    assert (result.node_executions, result.cache_hits) == (5, 1)


def test_answers_are_not_shared(open_bench: Open) -> None:
    """What a node returned after a question depends on the answer, which no key holds."""
    graph, cached = odd(lambda _: {"log": [interrupt("which?")]})
    given = [{**cases(answer)[0], "answers": [answer]} for answer in "xyz"]
    result = run(open_bench(graph, cached), given)
    assert [cell.state["log"] for cell in result.cells] == [["in", answer] for answer in "xyz"]
    assert result.cache_hits == 0


def test_a_node_inside_a_subgraph_is_cached_by_its_path(open_bench: Open) -> None:
    inner = line(*"xy").compile()
    graph = line("a", "s", "b", bodies={"s": inner})
    plain = open_bench(graph, {}, where="plain")
    bench = open_bench(graph, {"s|x": ["log"], "s|y": ["log"], "b": ["log"]})
    expected, found = run(plain, cases(*"123")), run(bench, cases(*"123"))
    assert answers(bench, found) == answers(plain, expected)
    assert (expected.node_executions, found.node_executions, found.cache_hits) == (12, 6, 6)


def test_nodes_of_subgraphs_that_run_beside_others_simply_run(open_bench: Open) -> None:
    inner = line(*"xy").compile()
    graph = line("a", "s", "b", bodies={"s": inner})
    graph.add_node("c", make_body(B("c")))
    graph.add_edge("a", "c")
    plain = open_bench(graph, {}, where="plain")
    bench = open_bench(graph, {"s|x": ["log"], "s|y": ["log"]})
    expected, found = run(plain, cases(*"12")), run(bench, cases(*"12"))
    assert found.node_executions == expected.node_executions
    assert found.cache_hits == 0


def test_tokens_are_counted_where_they_were_spent(open_bench: Open) -> None:
    used = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
    graph, cached = odd(lambda _: {"log": [AIMessage("hi", id="1", usage_metadata=used)]})
    result = run(open_bench(graph, cached), cases("1", "2", "3"))
    assert sorted(cell.result.input_tokens for cell in result.cells) == [0, 0, 7]


class Model(BaseModel):
    log: list[str] = []
    value: int = 0


def test_a_pydantic_state_counts_by_its_declared_attributes(open_bench: Open) -> None:
    def a(state: Model) -> dict[str, Any]:
        CALLS.add("a")
        return {"value": len(state.log)}

    bench = open_bench(line("a", schema=Model, bodies={"a": a}), {"a": ["log"]})
    given = [{"id": str(n), "state": {"log": ["x"] * (n % 2), "value": n}} for n in range(6)]
    result = run(bench, given)
    assert (result.node_executions, result.cache_hits) == (2, 4)
    assert {cell.state["value"] for cell in result.cells} == {0, 1}


# --- Once, whoever wants it -----------------------------------------------------------------------

PROJECT = """
import operator, os, sys, time
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from wtb_prefect import TestBench, WorkflowProject, current_workspace

HERE = Path(__file__).parent

class State(TypedDict):
    log: Annotated[list, operator.add]
    name: str

def index(state: State):
    with (HERE / "bodies.txt").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    (current_workspace() / "index.txt").write_text("indexed")
    time.sleep(float(os.environ["SECONDS"]))
    return {"log": ["index"]}

def answer(state: State):
    return {"log": [state["name"] + (current_workspace() / "index.txt").read_text()]}

def build():
    builder = StateGraph(State)
    builder.add_node("index", index)
    builder.add_node("answer", answer)
    builder.add_edge(START, "index")
    builder.add_edge("index", "answer")
    return builder

project = WorkflowProject("p", build, db_path=HERE / "w.db", output_dir=HERE / "out")
project.cached("index", reads=[])

if __name__ == "__main__":
    cases = [{"id": n, "state": {"log": [], "name": n}} for n in "abcdefgh"]
    with TestBench(project) as bench:
        result = bench.batch(cases=cases, runner="inline", batch_id=sys.argv[1])
    print(result.status, result.node_executions, result.cache_hits)
"""


@dataclass
class Script:
    """The project above, run by processes of its own."""

    folder: Path

    def start(self, batch: str, seconds: float) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.folder / "bench.py"), batch],
            env={**os.environ, "SECONDS": str(seconds)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bodies(self) -> list[str]:
        file = self.folder / "bodies.txt"
        return file.read_text().split() if file.exists() else []

    def locks(self) -> list[Path]:
        return list((self.folder / "out/locks").iterdir())


@pytest.fixture
def script(tmp_path: Path) -> Script:
    (tmp_path / "bench.py").write_text(PROJECT)
    return Script(tmp_path)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def test_two_processes_compute_once(script: Script) -> None:
    """Eight cases each, all at once: one body, and everybody else waits for it."""
    first, second = script.start("one", 2), script.start("two", 2)
    results = sorted([ended(first), ended(second)])
    assert len(script.bodies()) == 1
    assert results == ["completed 8 8", "completed 9 7"]
    assert script.locks() == []


def test_the_next_one_computes_after_a_kill(script: Script) -> None:
    """`kill -9` in the middle of the body: whoever waits takes over at once."""
    first = script.start("one", 120)
    wait_for(lambda: script.bodies() != [])
    second = script.start("two", 0.1)
    wait_for(lambda: len(script.locks()) == 1)
    time.sleep(1)
    assert len(script.bodies()) == 1
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert ended(second) == "completed 9 7"
    assert len(script.bodies()) == 2
    assert script.locks() == []
    assert ended(script.start("one", 0.1)) == "completed 8 8"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_who_waits_goes_on_as_soon_as_the_step_is_recorded(open_bench: Open) -> None:
    """Not only when the execution that computed has ended: here it waits for the others."""
    together = threading.Barrier(4)

    def b(state: State) -> dict[str, Any]:
        CALLS.add("b")
        together.wait(timeout=20)
        return {"log": ["b"]}

    result = run(open_bench(line(*"ab", bodies={"b": b}), {"a": ["log"]}), cases(*"1234"))
    assert {cell.status for cell in result.cells} == {"completed"}
    assert (result.node_executions, result.cache_hits) == (5, 3)


def test_a_cancelled_run_leaves_no_claim_and_goes_on(open_bench: Open, tmp_path: Path) -> None:
    """Ctrl-C while one computes and seven wait; the same request again runs the body."""

    def a(state: State) -> dict[str, Any]:
        CALLS.add("a")
        if not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise KeyboardInterrupt
        return {"log": ["a"]}

    bench = open_bench(line("a", bodies={"a": a}), {"a": ["log"]})
    with pytest.raises(KeyboardInterrupt):
        bench.batch(cases=cases(*"12345678"), runner="inline")
    CALLS.take()
    again = run(bench, cases(*"12345678"))
    assert (again.node_executions, again.cache_hits) == (1, 7)
    assert list((bench.project.locations.output_dir / "locks").iterdir()) == []


def test_results_are_forgotten_when_asked(open_bench: Open) -> None:
    bench = open_bench(line(*"ab"), LOGGED)
    run(bench, cases("1"))
    with bench.session.open_uow(write=True) as uow:
        assert uow.node_results.delete(bench.session.project.workflow_id) == 2
        uow.commit()
    assert run(bench, cases("2")).node_executions == 2


def test_files_of_a_hit_are_read_back_with_a_check(open_bench: Open, base: Path) -> None:
    """A damaged blob is found when its file is made, not handed to the next node."""
    bench = open_bench(files_graph, CACHED, workspace=base)
    first = run(bench, questions("a"))
    assert text_of(bench, first.cells[0], "index.txt").startswith("c,")
    blob = bench.files(first.cells[0].execution_id)["index.txt"].blob_id
    path = bench.project.locations.output_dir / "blobs/objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_text(json.dumps("x" * (path.stat().st_size - 2)))
    with pytest.raises(Exception, match=f"blob {blob} is damaged"):
        bench.batch(cases=questions("b"), runner="inline")
