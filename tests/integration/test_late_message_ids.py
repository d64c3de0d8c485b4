"""A message that gets its id after it was saved is no reason to run everything apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from wtb_prefect import TestBench, WorkflowProject


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def test_prefixes_are_shared_and_every_fork_draws_ids_of_its_own(tmp_path: Path) -> None:
    """LangGraph gives ids in place when somebody reads the state with the message in it."""
    said: list[AIMessage] = []
    calls: list[str] = []

    async def first(_: State) -> dict[str, Any]:
        calls.append("first")
        said.append(AIMessage("first"))
        return {"messages": [said[-1]]}

    async def reader(_: State) -> dict[str, Any]:
        calls.append("reader")
        await asyncio.sleep(0.1)  # the other one's message is saved by now
        said[-1].id = "late"
        return {}

    def varied(_: State) -> dict[str, Any]:
        return {}

    graph = StateGraph(State)
    for name, node in (("first", first), ("reader", reader), ("varied", varied)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
    project = WorkflowProject("p", graph, db_path=tmp_path / "w.db", output_dir=tmp_path / "out")
    project.variant("varied", "other", lambda _: {"messages": [AIMessage("other")]})
    with TestBench(project) as bench:
        result = bench.batch(
            {"varied": "*"}, [{"id": "q", "state": {"messages": []}}], runner="inline"
        )
        assert [cell.unshared_reason for cell in result.cells] == [None, None]
        contents = [[m.content for m in cell.state["messages"]] for cell in result.cells]
    assert sorted(calls) == ["first", "reader"]
    assert sorted(contents) == [["first"], ["first", "other"]]
