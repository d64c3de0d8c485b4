"""What travels to a remote node and back; the bodies run through the same bytes, in a thread."""

from __future__ import annotations

import asyncio
import operator
import threading
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.errors import NodeError
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import Command, RetryPolicy, interrupt

from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.application.batch_test import run_batch_test
from wtb_prefect.application.plan_batch import BatchRequest
from wtb_prefect.application.read_results import read_report
from wtb_prefect.application.run_batch import BatchRun
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.domain.remote_node import RemoteNode
from wtb_prefect.errors import GraphError, InfrastructureError, InvalidInputError, NotFoundError
from wtb_prefect.infrastructure.inline_runner import InlineRunner
from wtb_prefect.infrastructure.processes import is_alive, this_process
from wtb_prefect.infrastructure.workflow.graph_source import resolve_graph
from wtb_prefect.infrastructure.workflow.remote_nodes import remote_runnable, run_packed
from wtb_prefect.terminal import plan_lines


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


class Odd(Exception):
    """One that pickle cannot rebuild."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class ByBytes:
    """Runs bodies here, but through what would travel; `lost` calls lose their process."""

    def __init__(self, project: WorkflowProject, lost: int = 0) -> None:
        self.definition = project.definition()
        self.calls: list[tuple[RemoteNode, str]] = []
        self.lost = lost

    async def call(self, node: RemoteNode, variant: str, payload: bytes) -> bytes:
        self.calls.append((node, variant))
        if len(self.calls) <= self.lost:
            raise InfrastructureError("the process was lost")
        source = resolve_graph(self.definition.graph)
        runnable = remote_runnable(source, self.definition.variants, node.node, variant)
        return await asyncio.to_thread(run_packed, node.node, runnable, payload)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def project_of(folder: Path, body: Any, **spec: Any) -> WorkflowProject:
    builder = StateGraph(State)
    builder.add_node("a", body, **spec)
    builder.add_node("b", lambda state: {"log": ["b"]})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    project = WorkflowProject("p", builder, db_path=folder / "w.db", output_dir=folder / "out")
    project.remote("a")
    return project


def run(project: WorkflowProject, calls: ByBytes | None = None) -> tuple[Any, Any]:
    """The only cell of a batch, and the state it ended with."""
    calls = calls or ByBytes(project)
    with open_session(project.definition(), remote_calls=calls) as session:
        request = BatchRequest(matrix=None, cases=[{"id": "c", "state": {"log": []}}])
        runs = BatchRun(owner=this_process(), runner_name="inline", is_alive=is_alive)
        end = asyncio.run(
            run_batch_test(request, session, lambda scope: InlineRunner(scope, session, 2), runs)
        )
        (cell,) = read_report(session.open_uow, end.plan.batch_id).cells
    with TestBench(project) as bench:
        return cell, bench.state(str(cell.execution_id)) if cell.execution_id else {}


def test_state_config_files_and_prints_travel(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(state: State, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        print("a line from elsewhere")
        (current_workspace() / "a.txt").write_text("a")
        thread = threading.current_thread().name
        case = config["configurable"]["wtb_case_id"]
        return Command(update={"log": [thread, case, runtime.store]})

    project = project_of(folder, body)
    cell, state = run(project)
    assert cell.error is None
    assert state["log"][1:] == ["c", None, "b"]
    assert state["log"][0] != threading.current_thread().name
    assert cell.node_executions == 2
    assert "a line from elsewhere" in capsys.readouterr().out
    with TestBench(project) as bench:
        assert list(bench.files(cell.execution_id)) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("plain"), Odd("this", "that")])
def test_exceptions_come_back_as_they_were(folder: Path, error: Exception) -> None:
    def body(state: State) -> Any:
        raise error

    cell, _ = run(project_of(folder, body))
    assert (cell.error.node, cell.error.type) == ("a", type(error).__name__)
    assert cell.error.message == str(error)
    assert "raise error" in cell.error.traceback


def test_retry_policies_see_the_exceptions(folder: Path) -> None:
    calls = []

    def body(state: State) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("not yet")
        return {"log": ["a"]}

    policy = RetryPolicy(initial_interval=0.01, retry_on=ConnectionError)
    cell, state = run(project_of(folder, body, retry_policy=policy))
    assert state["log"] == ["a", "b"]
    assert cell.node_executions == 4


@pytest.mark.parametrize("handled", [True, False])
def test_a_lost_process_fails_the_stretch_not_the_workflow(folder: Path, *, handled: bool) -> None:
    """Not even an error handler takes it for the node's failure; the same request goes on."""

    handled_errors = []

    def handler(state: State, error: NodeError) -> Any:
        handled_errors.append(error)
        return {"log": ["handled"]}

    def body(state: State) -> Any:
        return {"log": ["a"]}

    project = project_of(folder, body, **({"error_handler": handler} if handled else {}))
    calls = ByBytes(project, lost=1)
    with pytest.raises(InfrastructureError, match="the process was lost"):
        run(project, calls)
    assert not handled_errors
    _, state = run(project, calls)
    assert state["log"] == ["a", "b"]


def test_what_cannot_travel_or_be_asked_is_the_nodes_failure(folder: Path) -> None:
    cell, _ = run(project_of(folder / "1", lambda state: {"log": [threading.Lock()]}))
    assert "remote node 'a': what it returned cannot travel" in cell.error.message
    cell, _ = run(project_of(folder / "2", lambda state: interrupt("?")))
    assert cell.status == "failed", cell
    assert "interrupt() was called in a remote node" in cell.error.message


def test_variants_of_their_own(folder: Path) -> None:
    project = project_of(folder, lambda state: {"log": ["a"]})
    project.variant("b", "other", lambda state: {"log": ["other"]})
    project.remote("b", variant="other", num_cpus=2, resources={"slots": 1})
    calls = ByBytes(project)
    with open_session(project.definition(), remote_calls=calls) as session:
        request = BatchRequest(matrix={"b": "*"}, cases=[{"id": "c", "state": {"log": []}}])
        runs = BatchRun(owner=this_process(), runner_name="inline", is_alive=is_alive)
        asyncio.run(
            run_batch_test(request, session, lambda scope: InlineRunner(scope, session, 2), runs)
        )
    assert [(node.node, variant) for node, variant in calls.calls] == [
        ("a", "original"),
        ("b", "other"),
    ]


def test_in_place_without_ray_and_the_plan_says_so(folder: Path) -> None:
    def body(state: State) -> Any:
        return {"log": [threading.main_thread().ident]}

    project = project_of(folder, body)
    with TestBench(project) as bench:
        result = bench.batch(cases=[{"id": "c", "state": {"log": []}}], runner="inline")
        assert result.cells[0].state["log"] == [threading.main_thread().ident, "b"]
        assert result.plan is not None
        said = "  on Ray as tasks of their own, elsewhere in place: a (1 CPU)"
        assert said in plan_lines(result.plan)


def test_refused(folder: Path) -> None:
    def with_store(state: State, store: BaseStore) -> Any:
        return {}

    inner = StateGraph(State).add_node("x", lambda s: s).add_edge(START, "x").compile()
    for body, said in ((with_store, "takes the graph's store"), (inner, "has a graph inside")):
        with (
            pytest.raises(GraphError, match=said),
            open_session(project_of(folder, body).definition()),
        ):
            pass
    project = project_of(folder, lambda state: {})
    with pytest.raises(InvalidInputError, match="'a' is declared as remote already"):
        project.remote("a")
    with pytest.raises(InvalidInputError, match="resources are numbers"):
        project.remote("b", num_cpus=-1)
    project.remote("nobody")
    with (
        pytest.raises(NotFoundError, match="no node to run remotely 'nobody'"),
        open_session(project.definition()),
    ):
        pass
