"""LangGraph's own agents, supervisors and swarms, with models that follow a script.

Each is run by the bench with and without sharing, and by LangGraph alone with the agents built the
other way: messages, path and status are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.warnings import LangGraphDeprecatedSinceV10
from langgraph_supervisor import create_supervisor
from langgraph_swarm import create_handoff_tool, create_swarm

from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.sdk.batch_result import BatchResult, Cell

# `create_react_agent` has moved to langchain; langgraph-supervisor builds on it all the same.
pytestmark = pytest.mark.filterwarnings(
    f"ignore::{LangGraphDeprecatedSinceV10.__module__}.{LangGraphDeprecatedSinceV10.__name__}"
)

Reply = Callable[[Sequence[BaseMessage]], AIMessage]
Build = Callable[[Mapping[str, str]], StateGraph[Any, Any, Any, Any]]
Steps = list[list[str]]


class Scripted(BaseChatModel):
    """A chat model that answers by what it is told, not by how often it was asked."""

    reply: Any

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Scripted:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.reply(messages))])


def call(tool: str, number: int, **arguments: Any) -> AIMessage:
    """What a model says that wants a tool to be called."""
    wanted = {"name": tool, "args": arguments, "id": f"{tool}-{number}"}
    return AIMessage("", tool_calls=[wanted])


def calculates(answer: str) -> Reply:
    """2 + 3 * 4, a step at a time."""

    def reply(messages: Sequence[BaseMessage]) -> AIMessage:
        made = [m for m in messages if m.type == "tool" and m.name in ("add", "multiply")]
        if not made:
            return call("multiply", 0, a=3, b=4)
        if len(made) == 1:
            return call("add", 1, a=2, b=int(made[0].text))
        return AIMessage(answer.format(made[-1].text))

    return reply


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def multiply_wrongly(a: int, b: int) -> int:
    """Multiply two numbers, nearly."""
    return a * b + 1


multiply_wrongly.__name__ = "multiply"


def looks_up(fact: str) -> Reply:
    """Knows one thing."""
    return lambda messages: AIMessage(fact)


def same_messages(messages: Sequence[AnyMessage]) -> list[tuple[Any, ...]]:
    """Messages without the ids that LangChain makes up; which call a tool answered stays."""
    known: dict[str, int] = {}

    def number(made_up: str | None) -> int | None:
        return None if made_up is None else known.setdefault(made_up, len(known))

    return [
        (
            message.type,
            message.text,
            message.name,
            [
                (wanted["name"], repr(wanted["args"]), number(wanted["id"]))
                for wanted in getattr(message, "tool_calls", ())
            ],
            number(message.tool_call_id) if isinstance(message, ToolMessage) else None,
        )
        for message in messages
    ]


QUESTION = {"messages": [HumanMessage("What is 2 + 3 * 4?", id="question")]}


def alone(build: Build, choices: Mapping[str, str]) -> tuple[list[tuple[Any, ...]], Steps]:
    """LangGraph without the bench: the messages, and the nodes of each super-step."""
    graph = build(choices).compile(checkpointer=InMemorySaver())

    async def run() -> tuple[list[tuple[Any, ...]], Steps]:
        config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 25}
        steps: dict[int, list[str]] = {}
        async for event in graph.astream(QUESTION, config, stream_mode="debug", durability="sync"):
            if event["type"] == "task":
                steps.setdefault(event["step"], []).append(event["payload"]["name"])
        state = (await graph.aget_state(config)).values
        return same_messages(state["messages"]), [sorted(steps[n]) for n in sorted(steps)]

    return asyncio.run(run())


def check(folder: Path, build: Build, others: Mapping[str, Any], saved: int) -> None:
    """Every combination of `original` and `other`, shared, unshared and alone.

    `others`: path of a node -> what stands there in `build({path: "other"})`; `saved`: how many
    node bodies sharing saves at least.
    """
    shared, together = batch(folder / "shared", build, others, share=True)
    apart, lonely = batch(folder / "unshared", build, others, share=False)
    assert {cell.unshared_reason for cell in shared.cells} == {None}
    assert apart.node_executions - shared.node_executions >= saved
    assert together == lonely
    assert len(together) == 2 ** len(others)
    for combination, found in together.items():
        pairs = [part.split("=") for part in combination.split(",") if "=" in part]
        assert found == alone(build, dict(pairs)), combination


def batch(
    folder: Path, build: Build, others: Mapping[str, Any], *, share: bool
) -> tuple[BatchResult, dict[str, tuple[list[tuple[Any, ...]], Steps]]]:
    """A batch of all combinations, all of them completed, and what each cell came to."""
    project = WorkflowProject(
        "agents", lambda: build({}), db_path=folder / "w.db", output_dir=folder / "out"
    )
    for path, implementation in others.items():
        project.variant(path, "other", implementation, version="1")
    with TestBench(project) as bench:
        result = bench.batch(
            matrix={path: ["original", "other"] for path in others},
            cases=[{"id": "c", "state": QUESTION}],
            runner="inline",
            share_prefixes=share,
        )
        assert [cell.error for cell in result.cells] == [None] * len(result.cells)
        assert {cell.status for cell in result.cells} == {"completed"}
        return result, {cell.combination: seen(bench, cell) for cell in result.cells}


def seen(bench: TestBench, cell: Cell) -> tuple[list[tuple[Any, ...]], Steps]:
    assert cell.execution_id is not None
    points = bench.history(cell.execution_id)
    return same_messages(cell.state["messages"]), [sorted(p.nodes) for p in points if p.nodes]


def test_react_agent(tmp_path: Path) -> None:
    """A model and its tools in a loop; tools are called through Send."""

    def build(choices: Mapping[str, str]) -> StateGraph[Any, Any, Any, Any]:
        says = "14 it is: {}" if choices.get("agent") == "other" else "The answer is {}."
        second = multiply_wrongly if choices.get("tools") == "other" else multiply
        agent = create_react_agent(Scripted(reply=calculates(says)), [add, second])
        return agent.builder

    both = build({"agent": "other", "tools": "other"})
    others = {node: both.nodes[node].runnable for node in ("agent", "tools")}
    check(tmp_path, build, others, saved=1)


def test_langchain_agent(tmp_path: Path) -> None:
    """The agent of LangChain 1.x: nodes `model` and `tools`."""

    def build(choices: Mapping[str, str]) -> StateGraph[Any, Any, Any, Any]:
        says = "14 it is: {}" if choices.get("model") == "other" else "The answer is {}."
        second = multiply_wrongly if choices.get("tools") == "other" else multiply
        agent = create_agent(Scripted(reply=calculates(says)), [add, second])
        return agent.builder

    both = build({"model": "other", "tools": "other"})
    others = {node: both.nodes[node].runnable for node in ("model", "tools")}
    check(tmp_path, build, others, saved=1)


def test_tools_of_a_graph_of_ones_own(tmp_path: Path) -> None:
    """`ToolNode` as a variant of a function that calls the tools itself."""

    def by_hand(state: Any) -> dict[str, Any]:
        wanted = state["messages"][-1].tool_calls
        made = {"add": add, "multiply": multiply}
        return {
            "messages": [
                ToolMessage(
                    str(made[one["name"]](**one["args"])), tool_call_id=one["id"], name=one["name"]
                )
                for one in wanted
            ]
        }

    def build(choices: Mapping[str, str]) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import START, MessagesState
        from langgraph.prebuilt import tools_condition

        model = Scripted(reply=calculates("{}"))
        builder = StateGraph(MessagesState)
        builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
        wrong = ToolNode([add, multiply_wrongly])
        builder.add_node("tools", wrong if choices.get("tools") == "other" else by_hand)
        builder.add_edge(START, "model")
        builder.add_conditional_edges("model", tools_condition)
        builder.add_edge("tools", "model")
        return builder

    check(tmp_path, build, {"tools": ToolNode([add, multiply_wrongly])}, saved=1)


def supervises(first: str) -> Reply:
    """Hands over to the expert named first, then to the one for numbers, then sums up."""

    def reply(messages: Sequence[BaseMessage]) -> AIMessage:
        heard = [message.name for message in messages if message.type == "ai"]
        for number, expert in enumerate((first, "math_expert")):
            if expert not in heard:
                return call(f"transfer_to_{expert}", number)
        return AIMessage(f"Done after asking {first}.")

    return reply


def test_supervisor(tmp_path: Path) -> None:
    """Divergence inside the supervisor's own graph, and of an expert, which is one node: the
    library calls experts from a function."""

    def build(choices: Mapping[str, str]) -> StateGraph[Any, Any, Any, Any]:
        says = "It is {}." if choices.get("math_expert") == "other" else "The answer is {}."
        first = "math_expert" if choices.get("supervisor|agent") == "other" else "research_expert"
        research = create_react_agent(
            Scripted(reply=looks_up("Multiplication first.")), [], name="research_expert"
        )
        math = create_react_agent(
            Scripted(reply=calculates(says)), [add, multiply], name="math_expert"
        )
        return create_supervisor([research, math], model=Scripted(reply=supervises(first)))

    both = build({"math_expert": "other", "supervisor|agent": "other"})
    others = {
        "math_expert": both.nodes["math_expert"].runnable,
        "supervisor|agent": both.nodes["supervisor"].runnable.builder.nodes["agent"].runnable,
    }
    check(tmp_path, build, others, saved=3)


def test_swarm(tmp_path: Path) -> None:
    """The active agent is in the state; it hands over from inside its own graph."""

    def alice(messages: Sequence[BaseMessage]) -> AIMessage:
        if "Bob" in {message.name for message in messages if message.type == "ai"}:
            return AIMessage("Thank you, Bob.")
        return call("transfer_to_bob", 0)

    def build(choices: Mapping[str, str]) -> StateGraph[Any, Any, Any, Any]:
        says = "Aye: {}" if choices.get("Bob|model") == "other" else "The answer is {}."
        second = multiply_wrongly if choices.get("Bob|tools") == "other" else multiply
        to_bob = create_handoff_tool(agent_name="Bob")
        first = create_agent(Scripted(reply=alice), [to_bob], name="Alice")
        bob = create_agent(Scripted(reply=calculates(says)), [add, second], name="Bob")
        return create_swarm([first, bob], default_active_agent="Alice")

    both = build({"Bob|model": "other", "Bob|tools": "other"}).nodes["Bob"].runnable.builder
    others = {f"Bob|{node}": both.nodes[node].runnable for node in ("model", "tools")}
    check(tmp_path, build, others, saved=4)
