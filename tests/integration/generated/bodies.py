"""What the nodes of generated graphs do.

Nodes count their calls, write state and files, and do so in a way that depends on what ran before,
so that a wrong prefix, a lost write or a node that runs twice shows in the final state or files.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.config import get_config, get_store
from langgraph.errors import NodeError
from langgraph.runtime import get_runtime
from langgraph.types import Command, interrupt

from generated.state import CALLS, Brief, Context
from wtb_prefect import current_workspace


class Flaky(Exception):
    """What a node raises that succeeds when it is tried again."""


@dataclass(frozen=True, repr=False)
class Body(Brief):
    """One implementation of a node, by the node's path.

    `alone`: no other node runs at the same time, at any level. `shared` appends to a file of all,
    `removes` deletes one. `goto`: chooses its successor by a Command, `parent`: in the graph above.
    `asks` questions, `fails` as often before it succeeds, `timed`: has a time limit,
    `hangs` for ever, `pure`: its output
    depends on the total alone, so that a cache may answer. `uses`: store, context, and extra state
    keys. `counted`: False inside of a graph that a node calls by itself.
    """

    node: str
    variant: str = "original"
    is_async: bool = False
    alone: bool = False
    shared: bool = False
    removes: str | None = None
    raises: bool = False
    goto: tuple[str, ...] = ()
    parent: bool = False
    asks: int = 0
    fails: int = 0
    timed: bool = False
    hangs: bool = False
    pure: bool = False
    uses: tuple[str, ...] = ()
    counted: bool = True

    @property
    def name(self) -> str:
        """The name in its own graph."""
        return self.node.rpartition("|")[2]


NOTES = ("notes",)
"""The namespace of the store that nodes write to."""


def make_body(body: Body) -> Callable[..., Any]:
    """The function of a body."""

    def work(state: dict[str, Any]) -> Any:
        answers = _begin(body)
        known: list[Any] = []
        if "store" in body.uses:
            store = get_store()
            known = store.search(NOTES, limit=1000) if body.alone else []
            store.put(NOTES, _key(body, state), {"by": body.variant})
        return _finish(body, state, answers, [item.key for item in known])

    async def awork(state: dict[str, Any]) -> Any:
        answers = _begin(body)
        await asyncio.sleep(3600 if body.hangs else 0)
        known: list[Any] = []
        if "store" in body.uses:
            store = get_store()
            known = await store.asearch(NOTES, limit=1000) if body.alone else []
            await store.aput(NOTES, _key(body, state), {"by": body.variant})
        return _finish(body, state, answers, [item.key for item in known])

    return awork if body.is_async else work


def count(body: Body) -> None:
    """Notes that the body is called, and for which visit."""
    if body.counted:
        CALLS.add(body.node, visit_of(get_config()))


def visit_of(config: Any) -> str:
    """LangGraph's id of the visit a config belongs to; an error handler belongs to its node's."""
    parts = config["metadata"].get("langgraph_checkpoint_ns", "").split("|")
    if len(parts) > 1 and parts[-1].startswith("__error_handler__"):
        parts.pop()
    return str(parts[-1].rpartition(":")[2])


def handler(body: Body) -> Callable[..., Any]:
    """What takes a node's error instead of the graph's end."""

    def handle(state: dict[str, Any], error: NodeError) -> Any:
        count(body)
        note = f"{body.name}:handled:{error.error}"
        _append(current_workspace() / "nodes" / f"{body.name}.txt", note)
        return {"log": [note], "visits": {body.name: 1}}

    return handle


def answer_to(question: Any) -> str:
    """Answers that are a function of the question."""
    return f"yes {question}"


def _begin(body: Body) -> list[str]:
    count(body)
    return [str(interrupt(f"{body.name}:{body.variant}:{k}")) for k in range(body.asks)]


def _key(body: Body, state: dict[str, Any]) -> str:
    return f"{body.name}:{state.get('item', 0)}:{len(state.get('log', ()))}"


def _finish(body: Body, state: dict[str, Any], answers: list[str], known: list[str]) -> Any:
    note = _note(body, state, answers, known)
    if not body.pure:
        _write_files(body, state, note)
    if body.raises:
        raise ValueError(f"{note} cannot")
    return _answer(body, state, note)


def _note(body: Body, state: dict[str, Any], answers: list[str], known: list[str]) -> str:
    if body.pure:
        return f"{body.name}:{body.variant}:{state.get('total', 0)}"
    parts: list[Any] = [body.name, body.variant, len(state.get("log", ())), *answers]
    if state.get("item"):
        parts.append(f"item{state['item']}")
    if known:
        parts.append(f"store{len(known)}.{zlib.crc32(repr(sorted(known)).encode()) % 1000}")
    if "context" in body.uses:
        parts.append(get_runtime(Context).context.tag)
    parts += [f"{key}{state[key]}" for key in ("left", "is_last") if key in state]
    parts += [f"{key}{len(state[key])}" for key in ("delta", "messages", "own") if key in state]
    return ":".join(map(str, parts))


def _write_files(body: Body, state: dict[str, Any], note: str) -> None:
    folder = current_workspace()
    item = f"-{state['item']}" if state.get("item") else ""
    _append(folder / "nodes" / f"{body.name}{item}.txt", note)
    if body.shared:
        _append(folder / "shared.txt", note)
    if body.removes is not None:
        (folder / "nodes" / f"{body.removes}.txt").unlink(missing_ok=True)
    if body.fails:
        tries = folder / "tries" / f"{body.name}{item}.txt"
        _append(tries, note)
        if len(tries.read_text().splitlines()) % (body.fails + 1):
            raise Flaky(f"{note} not yet")


def _answer(body: Body, state: dict[str, Any], note: str) -> Any:
    points = zlib.crc32(note.encode()) % 7
    update: dict[str, Any] = {"log": [note], "total": points, "visits": {body.name: 1}}
    if body.alone:
        update["last"] = note
    if "messages" in body.uses:
        # Every second one has an id of its own, and replaces what had it before.
        given = f"{body.name}-message" if points % 2 else None
        update["messages"] = [AIMessage(note, id=given)]
    update.update({key: [note] for key in ("delta", "own") if key in body.uses})
    if not body.goto:
        return update
    target = body.goto[(state.get("total", 0) + points) % len(body.goto)]
    return Command(goto=target, update=update, graph=Command.PARENT if body.parent else None)


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"{line}\n")
