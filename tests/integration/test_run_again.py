"""A cell again from each of its checkpoints: the same end, and nothing left of it afterwards."""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.application.delete_batch import plan_deletion
from wtb_prefect.application.load_case import load_case
from wtb_prefect.application.prune_checkpoints import prune_batch
from wtb_prefect.application.run_again import Again, begin_again, forget, run_again
from wtb_prefect.application.run_batch import stored_scope
from wtb_prefect.domain.execution import ExecutionKind
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.event_loop import run_blocking
from wtb_prefect.infrastructure.processes import is_alive


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def asks(question: str) -> Any:
    def node(state: State) -> dict[str, list[str]]:
        answer = interrupt(question)
        with (current_workspace() / "answers.txt").open("a") as file:
            file.write(answer)
        return {"log": [f"{question}: {answer}"]}

    return node


def counts(state: State) -> dict[str, list[str]]:
    return {"log": [f"seen {len(state['log'])}"]}


def build() -> StateGraph[Any, Any, Any, Any]:
    """ask -> sub (a subgraph with a memory, visited twice) -> again -> sub2 -> end"""
    inner: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    inner.add_node("counts", counts)
    inner.add_edge(START, "counts")
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    builder.add_node("ask", asks("who"))
    builder.add_node("sub", inner.compile(checkpointer=True))
    builder.add_node("again", asks("where"))
    builder.add_node("end", counts)
    builder.add_edge(START, "ask")
    for before, after in (("ask", "sub"), ("sub", "again"), ("again", "end")):
        builder.add_edge(before, after)
    return builder


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TestBench]:
    project = WorkflowProject("p", build, db_path=tmp_path / "w.db", output_dir=tmp_path / "out")
    project.variant("end", "other", counts)
    with TestBench(project) as made:
        yield made


def rows(folder: Path) -> dict[str, list[Any]]:
    """Every row but contents of files, which are named by what they hold."""
    found = {}
    for name in ("w.db", "w-checkpoints.db"):
        with closing(sqlite3.connect(folder / name)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in names.fetchall():
                if not table.startswith(("file_", "sqlite_")):
                    found[table] = sorted(map(repr, connection.execute(f"SELECT * FROM {table}")))
    return found


def prepared(bench: TestBench) -> tuple[Any, Again, str]:
    cases = [{"id": "c", "state": {"log": ["in"]}, "answers": ["me", "here"]}]
    result = bench.batch(matrix={"end": "*"}, cases=cases, runner="inline")
    assert {cell.status for cell in result.cells} == {"completed"}
    cell = result.cells[0]
    session = bench.session
    with session.open_uow() as uow:
        source = uow.executions.get(str(cell.execution_id))
        found = uow.cells.get(cell.result.cell_id)
        scope = stored_scope(result.batch_id, session)
        case = load_case(uow, session, scope, "c")
    assert source is not None
    assert found is not None
    again = Again(cell=found, scope=scope, prepared=case, source=source)
    return cell, again, result.batch_id


def test_the_end_is_the_same_from_every_checkpoint(bench: TestBench, tmp_path: Path) -> None:
    """Answers go on where they were; files and memories of subgraphs come along."""
    from dataclasses import replace

    cell, again, _ = prepared(bench)
    before, files = rows(tmp_path), bench.files(cell.execution_id)
    for point in [None, *bench.history(cell.execution_id)]:
        here = replace(again, point=point)
        begin = begin_again(here, bench.session)
        ended = run_blocking(run_again(begin, here, bench.session))
        assert (ended.status, ended.kind, ended.batch_id) == ("completed", ExecutionKind.RUN, None)
        assert dict(bench.state(ended.execution_id)) == dict(cell.state)
        assert bench.files(ended.execution_id) == files
        forget(ended, bench.session)
        assert rows(tmp_path) == before


def test_a_run_that_is_kept_holds_what_it_stands_on(bench: TestBench) -> None:
    from dataclasses import replace

    cell, again, batch_id = prepared(bench)
    here = replace(again, point=bench.history(cell.execution_id)[2])
    ended = run_blocking(run_again(begin_again(here, bench.session), here, bench.session))
    assert ended.lineage is not None
    found = plan_deletion(batch_id, is_alive, bench.session)
    assert [e.execution_id for e in found.kept] == [ended.lineage.parent_id]
    prune_batch(batch_id, is_alive, bench.session)
    with pytest.raises(InvalidInputError, match="was pruned"):
        begin_again(here, bench.session)
    assert dict(bench.state(ended.execution_id)) == dict(cell.state)
