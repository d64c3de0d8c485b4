"""The self-check: sampled cells run again on their own, and everything they left compared."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.application.read_results import read_report
from wtb_prefect.application.read_self_check import self_check_lines
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.errors import InvalidInputError

CASES = [{"id": name, "state": {"log": []}} for name in "xyz"]
Node = Callable[[Any], dict[str, Any]]


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    messages: Annotated[list[AnyMessage], add_messages]


def steady(state: State) -> dict[str, Any]:
    (current_workspace() / "a.txt").write_text("a")
    return {"log": ["a"], "messages": [AIMessage("same text, another id each time")]}


def last(name: str) -> Node:
    return lambda state: {"log": [name]}


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[..., TestBench]]:
    opened = []

    def make(first: Node, evaluator: Any = None, **routes: Any) -> TestBench:
        builder = StateGraph(State)
        builder.add_node("a", first)
        builder.add_node("b", last("b"))
        builder.add_edge(START, "a")
        builder.add_conditional_edges("a", routes.get("route") or (lambda _: "b"), ["b", END])
        project = WorkflowProject("p", builder, db_path=tmp_path / "w.db", output_dir=tmp_path)
        for name in ("b1", "b2"):
            project.variant("b", name, last(name))
        if evaluator is not None:
            project.evaluator(evaluator)
        opened.append(TestBench(project))
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


def check(bench: TestBench, k: int, **options: Any) -> dict[str, Any]:
    result = bench.batch({"b": "*"}, CASES, runner="inline", self_check=k, **options)
    assert {cell.status for cell in result.cells} == {"completed"}
    found = read_report(bench.session.open_uow, result.batch_id).self_check
    assert found is not None
    assert found == result.report.self_check
    return dict(found)


def test_equal_cells_are_equal_message_ids_aside(open_bench: Callable[..., TestBench]) -> None:
    scored = []
    bench = open_bench(steady, lambda state: len(scored) if scored.append(1) else 1)
    found = check(bench, 5)
    assert found == {"checked": 5, "equal": 5, "differences": []}
    assert self_check_lines(found) == ["self-check: 5 of 5 cells equal when run alone"]
    assert len(scored) == 9  # the cells that were run again are not scored


def test_is_found_behind_any_number_of_entries(open_bench: Callable[..., TestBench]) -> None:
    """A batch of many combinations tells of each in the audit log, before it is checked."""
    bench = open_bench(steady)
    entry = AuditEntry(
        at=bench.session.clock.now(), actor="test", action="other", subject="big", details={}
    )
    with bench.session.open_uow(write=True) as uow:
        for _ in range(1001):
            uow.audit_log.append(entry)
        uow.commit()
    assert check(bench, 1, batch_id="big")["checked"] == 1


def test_the_batch_is_what_it_was(open_bench: Callable[..., TestBench]) -> None:
    bench = open_bench(steady)
    without = bench.batch({"b": "*"}, CASES, runner="inline")
    ids = [cell.execution_id for cell in without.cells]
    check(bench, 4)
    after = bench.results()
    assert [cell.execution_id for cell in after.cells] == ids
    assert after.report.node_executions == without.report.node_executions
    assert bench.batch({"b": "*"}, CASES, runner="inline").node_executions == 0


def test_every_pass_runs_the_cells_again(open_bench: Callable[..., TestBench]) -> None:
    calls = []

    def counted(state: State) -> dict[str, Any]:
        calls.append(1)
        return {"log": ["a"]}

    bench = open_bench(counted)
    check(bench, 2)
    check(bench, 2)
    assert len(calls) == 3 + 2 + 2


def test_cells_are_taken_from_every_combination(open_bench: Callable[..., TestBench]) -> None:
    def drawing(state: State) -> dict[str, Any]:
        return {"log": [random.random()]}

    found = check(open_bench(drawing), 3)
    assert (found["checked"], found["equal"]) == (3, 0)
    where = [(d["combination"], d["where"]) for d in found["differences"]]
    assert {combination for combination, _ in where} == {"baseline", "b=b1", "b=b2"}
    for _, text in where:
        assert text.startswith("state key 'log'[0] comes back with another value when run alone")
    lines = self_check_lines(found)
    assert lines[0] == "self-check: 0 of 3 cells equal when run alone"
    assert "draw at random" in lines[-1]


def test_more_than_there_are(open_bench: Callable[..., TestBench]) -> None:
    assert check(open_bench(steady), 100)["checked"] == 9


def test_differences_of_files_path_and_status(open_bench: Callable[..., TestBench]) -> None:
    runs: list[int] = []

    def files(state: State) -> dict[str, Any]:
        runs.append(1)
        (current_workspace() / f"{len(runs)}.txt").write_text("x")
        return {"log": ["a"]}

    (found,) = check(open_bench(files), 1)["differences"]
    assert found["where"].startswith("file '")
    assert "is there, alone missing" in found["where"]


def test_differences_of_the_path(open_bench: Callable[..., TestBench]) -> None:
    runs: list[int] = []

    def route(state: State) -> str:
        runs.append(1)
        return "b" if len(runs) <= 3 else END

    (found,) = check(open_bench(steady, route=route), 1)["differences"]
    assert found["where"].startswith("path is [('a',), ('b',)], alone [('a',)]")


def test_differences_of_the_status(open_bench: Callable[..., TestBench]) -> None:
    runs: list[int] = []

    def fails_later(state: State) -> dict[str, Any]:
        runs.append(1)
        if len(runs) > 3:
            raise ValueError("not again")
        return {"log": ["a"]}

    (found,) = check(open_bench(fails_later), 1)["differences"]
    assert found["where"] == ("status is completed, alone failed: node 'a': ValueError: not again")


@pytest.mark.parametrize("wrong", [-1, True, "3", 1.5])
def test_wrong_numbers_are_refused(open_bench: Callable[..., TestBench], wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="self_check is"):
        open_bench(steady).batch(cases=CASES, runner="inline", self_check=wrong)
