"""Graphs for tests: a generator of whole graphs, and what they do when LangGraph runs them alone.

Nodes count their calls, write state and files, and do so in a way that depends on what ran before,
so that a wrong prefix, a lost write or a node that runs twice shows in the final state or files.
"""

from __future__ import annotations

import asyncio
import operator
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict

from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph

from wtb_prefect import WorkflowProject, current_workspace
from wtb_prefect.infrastructure.workflow.body_context import BodyContext, body_context


class Calls:
    """How often each node's body was called, from whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()

    def add(self, name: str) -> None:
        with self._lock:
            self._calls[name] += 1

    def take(self) -> Counter[str]:
        """The calls since this was last asked."""
        with self._lock:
            calls, self._calls = self._calls, Counter()
        return calls


CALLS = Calls()


def add_counts(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    """A reducer that shows when a write is applied twice."""
    return {key: old.get(key, 0) + new.get(key, 0) for key in sorted({*old, *new})}


def add_modulo(old: int, new: int) -> int:
    """A reducer whose result routers depend on."""
    return (old + new) % 1009


class State(TypedDict, total=False):
    """`last` has no reducer: only nodes that run alone in their super-step write it."""

    log: Annotated[list[str], operator.add]
    total: Annotated[int, add_modulo]
    visits: Annotated[dict[str, int], add_counts]
    last: str


@dataclass(frozen=True)
class Body:
    """One implementation of a node. `shared` appends to a file of all, `removes` deletes one; an
    `edit` of it does the same and says so."""

    node: str
    variant: str = "original"
    is_async: bool = False
    alone: bool = False
    shared: bool = False
    removes: str | None = None
    raises: bool = False
    edit: int = 0


def make_body(body: Body) -> Callable[..., Any]:
    """The function of a body."""

    def work(state: State) -> dict[str, Any]:
        CALLS.add(body.node)
        edited = f"/{body.edit}" if body.edit else ""
        note = f"{body.node}:{body.variant}{edited}:{len(state.get('log', []))}"
        folder = current_workspace()
        _append(folder / "nodes" / f"{body.node}.txt", note)
        if body.shared:
            _append(folder / "shared.txt", note)
        if body.removes is not None:
            (folder / "nodes" / f"{body.removes}.txt").unlink(missing_ok=True)
        if body.raises:
            raise ValueError(f"{note} cannot")
        update = {"log": [note], "total": zlib.crc32(note.encode()) % 7, "visits": {body.node: 1}}
        return {**update, "last": note} if body.alone else update

    async def awork(state: State) -> dict[str, Any]:
        await asyncio.sleep(0)
        return work(state)

    return awork if body.is_async else work


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"{line}\n")


@dataclass(frozen=True)
class Branch:
    """A conditional edge: the total decides between the targets."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Loop:
    """A conditional edge back: `times` visits of the source, one more if the total is odd."""

    source: str
    back: str
    on: str
    times: int


@dataclass
class Blueprint:
    """A generated graph."""

    bodies: dict[str, Body] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    joins: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)

    def build(self, chosen: Mapping[str, Body] | None = None) -> StateGraph[Any, Any, Any, Any]:
        """The builder, with other bodies in some places."""
        builder = StateGraph(State)
        for name, body in {**self.bodies, **(chosen or {})}.items():
            builder.add_node(name, make_body(body))
        for source, target in self.edges:
            builder.add_edge(source, target)
        for sources, target in self.joins:
            builder.add_edge(list(sources), target)
        for branch in self.branches:
            builder.add_conditional_edges(branch.source, _router(branch.targets), branch.targets)
        for loop in self.loops:
            again = _again(loop.source, loop.back, loop.on, loop.times)
            builder.add_conditional_edges(loop.source, again, [loop.back, loop.on])
        return builder


def _router(targets: Sequence[str]) -> Callable[[State], str]:
    names = tuple(targets)

    def route(state: State) -> str:
        return names[state["total"] % len(names)]

    return route


def _again(source: str, back: str, on: str, times: int) -> Callable[[State], str]:
    def route(state: State) -> str:
        return back if state["visits"].get(source, 0) < times + state["total"] % 2 else on

    return route


@dataclass(frozen=True)
class Request:
    """A graph, the bodies of its variants, and a matrix over them."""

    blueprint: Blueprint
    variants: tuple[Body, ...]
    matrix: Any

    def project(self, name: str, folder: Path) -> WorkflowProject:
        """The project of this request, in a ledger below `folder`."""
        project = WorkflowProject(
            name, self.blueprint.build, db_path=folder / "w.db", output_dir=folder / "out"
        )
        for body in self.variants:
            project.variant(body.node, body.variant, make_body(body))
        return project


class _Maker:
    """Draws a blueprint block by block; each block begins at one node and ends at one node."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.made = Blueprint()
        # After branches of different length met at a plain join, nodes may overlap themselves.
        self.ordered = True

    def node(self, *, alone: bool) -> str:
        name = f"n{len(self.made.bodies)}"
        alone = alone and self.ordered
        earlier = [known.node for known in self.made.bodies.values()]
        kind = self.draw(st.sampled_from(("plain", "plain", "shared", "removes")))
        self.made.bodies[name] = Body(
            node=name,
            is_async=self.draw(st.booleans()),
            alone=alone,
            shared=alone and kind == "shared",
            removes=self.draw(st.sampled_from(earlier))
            if alone and kind == "removes" and earlier
            else None,
        )
        return name

    def chain(self, start: str, length: int, *, alone: bool) -> str:
        for _ in range(length):
            following = self.node(alone=alone)
            self.made.edges.append((start, following))
            start = following
        return start

    def line(self, start: str) -> str:
        return self.chain(start, self.draw(st.integers(1, 2)), alone=True)

    def branch(self, start: str) -> str:
        heads, tails = [], []
        for _ in range(self.draw(st.integers(2, 3))):
            heads.append(self.node(alone=True))
            tails.append(self.chain(heads[-1], self.draw(st.integers(0, 1)), alone=True))
        ends = self.draw(st.booleans())
        self.made.branches.append(Branch(start, (*heads, END) if ends else tuple(heads)))
        after = self.node(alone=True)
        self.made.edges += [(tail, after) for tail in tails]
        return after

    def parallel(self, start: str) -> str:
        tails, lengths = [], []
        for _ in range(self.draw(st.integers(2, 3))):
            lengths.append(self.draw(st.integers(1, 2)))
            tails.append(self.chain(start, lengths[-1], alone=False))
        waiting = self.draw(st.booleans())
        if not waiting and len(set(lengths)) > 1:
            self.ordered = False
        after = self.node(alone=True)
        if waiting:
            self.made.joins.append((tuple(tails), after))
        else:
            self.made.edges += [(tail, after) for tail in tails]
        return after

    def loop(self, start: str) -> str:
        head = self.chain(start, 1, alone=True)
        tail = self.chain(head, self.draw(st.integers(0, 1)), alone=True)
        after = self.node(alone=True)
        self.made.loops.append(Loop(tail, head, after, self.draw(st.integers(1, 2))))
        return after


@st.composite
def requests(draw: Any) -> Request:
    """A graph of one to three blocks, and a matrix over one to three of its nodes."""
    maker = _Maker(draw)
    end = maker.node(alone=True)
    maker.made.edges.append((START, end))
    for _ in range(draw(st.integers(1, 3))):
        block = draw(st.sampled_from((maker.line, maker.branch, maker.parallel, maker.loop)))
        end = block(end)
    nodes = sorted(maker.made.bodies)
    varied = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
    most = 2 if len(varied) == 1 else 1  # few combinations: time is better spent on more graphs
    variants = [
        _variant(draw, maker.made.bodies[node], name)
        for node in varied
        for name in ("a", "b")[: draw(st.integers(1, most))]
    ]
    return Request(maker.made, tuple(variants), draw(_matrices(variants)))


def _variant(draw: Any, original: Body, name: str) -> Body:
    return Body(
        node=original.node,
        variant=name,
        is_async=draw(st.booleans()),
        alone=original.alone,
        shared=original.alone and draw(st.booleans()),
        raises=original.alone and draw(st.integers(0, 9)) == 0,
    )


def _matrices(variants: Sequence[Body]) -> st.SearchStrategy[Any]:
    choices: dict[str, list[str]] = defaultdict(lambda: ["original"])
    for body in variants:
        choices[body.node].append(body.variant)
    entry = st.fixed_dictionaries({n: st.sampled_from(names) for n, names in choices.items()})
    explicit = st.lists(entry, min_size=2, max_size=6, unique_by=lambda e: tuple(sorted(e.items())))
    return st.one_of(st.just(dict.fromkeys(choices, "*")), explicit)


def combinations(matrix: Any, variants: Sequence[Body]) -> dict[str, dict[str, str]]:
    """Canonical name -> choices, worked out apart from the project's own code."""
    if isinstance(matrix, list):
        entries = matrix
    else:
        entries = [{}]
        for node in matrix:
            names = ["original", *(body.variant for body in variants if body.node == node)]
            entries = [{**entry, node: name} for entry in entries for name in names]
    return {_name(entry): entry for entry in entries}


def _name(choices: Mapping[str, str]) -> str:
    named = [f"{n}={v}" for n, v in sorted(choices.items()) if v != "original"]
    return ",".join(named) or "baseline"


Steps = list[list[str]]


@dataclass(frozen=True)
class Alone:
    """What plain LangGraph makes of a combination. `steps`: the nodes of each super-step."""

    state: dict[str, Any]
    files: dict[str, str]
    steps: Steps
    failed: bool


def run_alone(request: Request, choices: Mapping[str, str], folder: Path) -> Alone:
    """Runs one combination without the bench: its bodies are simply in the graph."""
    bodies = {(body.node, body.variant): body for body in request.variants}
    chosen = {n: bodies[n, v] for n, v in choices.items() if v != "original"}
    folder.mkdir(parents=True)
    return asyncio.run(_alone(request.blueprint.build(chosen), folder))


async def _alone(builder: StateGraph[Any, Any, Any, Any], folder: Path) -> Alone:
    graph = builder.compile()
    token = body_context.set(BodyContext(_Folder(folder)))
    steps: dict[int, list[str]] = defaultdict(list)
    state: dict[str, Any] = {}
    failed = False
    try:
        async for mode, event in graph.astream({"log": ["in"]}, stream_mode=["values", "debug"]):
            if mode == "values":
                state = event
            elif event["type"] == "task":
                steps[event["step"]].append(event["payload"]["name"])
    except ValueError:
        failed = True
    finally:
        body_context.reset(token)
    return Alone(state, files_below(folder), [sorted(steps[n]) for n in sorted(steps)], failed)


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


def tree_size(runs: Iterable[tuple[Mapping[str, str], Steps]]) -> int:
    """How many bodies a fork tree runs, from (choices, super-steps) of each combination alone.

    A group runs a super-step together. Nodes with one choice in the group run once; of the others
    the first by name splits the group, and its parts are looked at the same way, so that a part
    runs only what its ancestors have not run already.
    """
    return _size(list(runs), 0, frozenset())


def _size(group: list[tuple[Mapping[str, str], Steps]], step: int, done: frozenset[str]) -> int:
    at = {tuple(steps[step]) if step < len(steps) else () for _, steps in group}
    assert len(at) == 1, f"combinations that agreed so far went different ways: {at}"
    nodes = at.pop()
    if not nodes:
        return 0
    open_nodes = [n for n in nodes if len({choices.get(n) for choices, _ in group}) > 1]
    settled = frozenset(nodes) - frozenset(open_nodes)
    ran = len(settled - done)
    if not open_nodes:
        return ran + _size(group, step + 1, frozenset())
    parts: dict[str | None, list[tuple[Mapping[str, str], Steps]]] = defaultdict(list)
    for member in group:
        parts[member[0].get(min(open_nodes))].append(member)
    return ran + sum(_size(part, step, done | settled) for part in parts.values())
