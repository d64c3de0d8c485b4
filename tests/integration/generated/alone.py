"""What plain LangGraph makes of a combination: the reference, without any code of the bench."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Interrupt, StateSnapshot

from generated.blueprint import Mount, Request, type_builder
from generated.state import CALLS, Context
from wtb_prefect.infrastructure.workflow.body_context import BodyContext, body_context

LIMIT = 25
"""Super-steps, as a project has them by default."""

CONTEXT = Context("green")


@dataclass
class Visit:
    """A task of a super-step: how often bodies were called for it, and the graph below it."""

    name: str
    calls: int = 0
    inner: Level = field(default_factory=lambda: defaultdict(list))


Level = dict[int, list[Visit]]
"""Super-step -> its tasks, in order."""


@dataclass(frozen=True)
class Alone:
    """What plain LangGraph makes of a combination."""

    state: dict[str, Any]
    files: dict[str, str]
    visits: Level
    status: str
    error: tuple[str, str] | None

    @property
    def steps(self) -> list[list[str]]:
        """The nodes of each super-step of the top graph."""
        return [sorted(v.name for v in self.visits[step]) for step in sorted(self.visits)]

    @property
    def bodies(self) -> int:
        """How many node bodies ran."""
        return bodies_of(self.visits)


def bodies_of(level: Level) -> int:
    """The calls of all visits of a graph and of those below it."""
    return sum(v.calls + bodies_of(v.inner) for visits in level.values() for v in visits)


def run_alone(request: Request, choices: Mapping[str, str], folder: Path) -> Alone:
    """Runs one combination without the bench: its nodes are simply in the graph."""
    variants = {(node.node, node.variant): node for node in request.variants}
    chosen = {path: variants[path, name] for path, name in choices.items() if name != "original"}
    folder.mkdir(parents=True)
    builder = request.blueprint.build(chosen)
    return asyncio.run(_Run(request, builder, folder).run())


class _Run:
    def __init__(self, request: Request, builder: type_builder, folder: Path) -> None:
        self.request = request
        resources = request.blueprint.resources()
        self.graph = builder.compile(checkpointer=InMemorySaver(), **resources)
        self.folder = folder
        self.config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": LIMIT}
        self.answers = request.listed()
        self.begun: list[tuple[tuple[str, ...], int, Mapping[str, Any]]] = []
        self.top: Level = defaultdict(list)
        self.visits: dict[str, Visit] = {}
        self.newest: dict[tuple[str, ...], Visit] = {}

    async def run(self) -> Alone:
        """From the start to the end, with every question answered while there are answers."""
        CALLS.take()
        token = body_context.set(BodyContext(_Folder(self.folder)))
        status, error = "completed", None
        given: Any = {"log": ["in"]}
        try:
            while given is not None:
                await self._stream(given)
                given = await self._resume()
            if (await self.graph.aget_state(self.config)).next:
                status = "paused"
        except Exception as exc:
            status, error = "failed", (type(exc).__name__, str(exc))
        finally:
            body_context.reset(token)
        self._weigh()
        state = (await self.graph.aget_state(self.config)).values
        return Alone(state, files_below(self.folder), self.top, status, error)

    async def _stream(self, given: Any) -> None:
        options: dict[str, Any] = {"stream_mode": "debug", "subgraphs": True, "durability": "sync"}
        if "context" in self.request.blueprint.features:
            options["context"] = CONTEXT
        async for namespace, event in self.graph.astream(given, self.config, **options):
            if event["type"] == "task":
                self.begun.append((namespace, event["step"], event["payload"]))

    async def _resume(self) -> Command[Any] | None:
        """The k-th question gets the k-th answer; open at the same time: in the tasks' order."""
        state = await self.graph.aget_state(self.config, subgraphs=True)
        given: dict[str, str] = {}
        for question in _questions(state):
            if callable(self.request.answers):
                given[question.id] = self.request.answers(question.value)
            elif self.answers:
                given[question.id] = self.answers.pop(0)
        return Command(resume=given) if given else None

    def _begun(self, namespace: tuple[str, ...], step: int, task: Mapping[str, Any]) -> None:
        name = task["name"]
        if task["id"] in self.visits or name.startswith("__error_handler__"):
            return  # goes on after an answer, or belongs to the node whose error it takes
        visit = self.visits[task["id"]] = Visit(name)
        level = self._level(namespace)
        level.setdefault(step, []).append(visit)
        self.newest[(*_names(namespace), name)] = visit

    def _level(self, namespace: tuple[str, ...]) -> Level:
        if not namespace:
            return self.top
        name, _, task = namespace[-1].rpartition(":")
        if name:
            return self.visits[task].inner
        # A graph with memory has one namespace for all of its visits: this is the newest.
        return self.newest[_names(namespace)].inner

    def _weigh(self) -> None:
        for namespace, step, task in self.begun:
            self._begun(namespace, step, task)
        _, tasks = CALLS.take_both()
        for task, calls in tasks.items():
            self.visits[task].calls += calls


def _names(namespace: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.partition(":")[0] for part in namespace)


def _questions(state: StateSnapshot) -> list[Interrupt]:
    """In the order of the tasks, also of those inside a mounted graph: the task of the graph
    itself has them in the order in which they were asked, which differs from run to run."""
    found: list[Interrupt] = []
    for task in state.tasks:
        inside = isinstance(task.state, StateSnapshot)
        found += _questions(task.state) if inside else task.interrupts
    return found


@dataclass(frozen=True)
class _Folder:
    """As much of a workspace as `current_workspace` needs."""

    folder: Path
    is_made: bool = True

    def path(self) -> Path:
        return self.folder

    def snapshot(self) -> None:
        return None

    def remove(self) -> None:
        return None


def files_below(folder: Path) -> dict[str, str]:
    """Relative path -> text."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def combinations(request: Request) -> dict[str, dict[str, str]]:
    """Canonical name -> choices, worked out apart from the project's own code."""
    if isinstance(request.matrix, list):
        entries = request.matrix
    else:
        entries = [{}]
        for node in request.matrix:
            known = [variant.variant for variant in request.variants if variant.node == node]
            entries = [{**e, node: name} for e in entries for name in ("original", *known)]
    return {_name(entry): entry for entry in entries}


def _name(choices: Mapping[str, str]) -> str:
    named = [f"{n}={v}" for n, v in sorted(choices.items()) if v != "original"]
    return ",".join(named) or "baseline"


Member = tuple[Mapping[str, str], Level]
Key = tuple[tuple[int, str, int], ...]
"""A visit by where it stands: super-step, name and number among its namesakes, at each level."""


def tree_size(group: Sequence[Member], done: frozenset[Key] = frozenset()) -> int:
    """How many bodies a fork tree runs, from (choices, visits) of each combination alone.

    A group goes on together as long as nothing about to run has more than one choice in it; what
    runs beside such a node, or beside the graph that holds it, still runs. The first of these
    nodes by name splits the group; a part runs only what its ancestors have not run already.
    """
    choices = [member for member, _ in group]
    open_nodes = {n for one in choices for n in one if len({c.get(n) for c in choices}) > 1}
    seen = [_reach(visits, open_nodes) for _, visits in group]
    ran, gates = seen[0]
    for other, others in seen:
        assert other.keys() == ran.keys(), "combinations that agreed so far went different ways"
        assert others == gates
    size = sum(calls for key, calls in ran.items() if key not in done)
    if not gates:
        return size
    parts: dict[str | None, list[Member]] = defaultdict(list)
    for member in group:
        parts[member[0].get(min(gates))].append(member)
    return size + sum(tree_size(part, done | ran.keys()) for part in parts.values())


def _reach(level: Level, open_nodes: set[str]) -> tuple[dict[Key, int], set[str]]:
    """The visits that run while these nodes may not, and those of these nodes that are met."""
    reach = _Reach(open_nodes)
    reach.walk(level, "", ())
    return reach.ran, reach.gates


@dataclass
class _Reach:
    open_nodes: set[str]
    ran: dict[Key, int] = field(default_factory=dict)
    gates: set[str] = field(default_factory=set)

    def walk(self, level: Level, path: str, above: Key) -> bool:
        """Whether the graph comes to its end."""
        for step in sorted(level):
            numbers: dict[str, int] = defaultdict(int)
            ended = True
            for visit in level[step]:
                key = (*above, (step, visit.name, numbers[visit.name]))
                numbers[visit.name] += 1
                ended = self.visit(visit, path + visit.name, key) and ended
            if not ended:
                return False
        return True

    def visit(self, visit: Visit, path: str, key: Key) -> bool:
        """Whether a visit comes to its end."""
        if path in self.open_nodes:
            self.gates.add(path)
            return False
        if not self.walk(visit.inner, f"{path}|", key):
            return False
        self.ran[key] = visit.calls
        return True


def mounts(request: Request) -> list[Mount]:
    """The mounted graphs of a request, at every level."""
    return [n for n in request.blueprint.all_nodes().values() if isinstance(n, Mount)]
