"""A generated graph: its nodes, how they are connected, and the builder LangGraph gets of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.cache.memory import InMemoryCache
from langgraph.graph import StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, RetryPolicy, Send

from generated.bodies import Body, Flaky, count, handler, make_body
from generated.state import Brief, Context, schema

type_builder = StateGraph[Any, Any, Any, Any]

ONE_MORE = RetryPolicy(
    initial_interval=0.0005, max_interval=0.0005, max_attempts=3, jitter=False, retry_on=Flaky
)


@dataclass(frozen=True, repr=False)
class Place(Brief):
    """What is declared about a node, whatever stands there."""

    retry: bool = False
    handled: bool = False
    timeout: float | None = None
    cached: bool = False
    defer: bool = False
    destinations: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Branch(Brief):
    """A conditional edge: the total decides between the targets."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Loop(Brief):
    """A conditional edge back: `times` visits of the source, one more if the total is odd."""

    source: str
    back: str
    on: str
    times: int


@dataclass(frozen=True, repr=False)
class Fan(Brief):
    """A conditional edge that sends one to `most` items to a node, as the total decides."""

    source: str
    target: str
    most: int


@dataclass(frozen=True, repr=False)
class Mount(Brief):
    """A graph in a node's place. `memory`: it remembers its earlier visits; `called`: not mounted,
    but called by a function; `last`: whether its state has the key without a reducer."""

    node: str
    blueprint: Blueprint
    variant: str = "original"
    memory: bool = False
    called: bool = False
    last: bool = True
    own: bool = False
    counted: bool = True

    @property
    def name(self) -> str:
        """The name in its own graph."""
        return self.node.rpartition("|")[2]


@dataclass(repr=False)
class Blueprint(Brief):
    """A generated graph; nodes by their names in it."""

    nodes: dict[str, Body | Mount] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    joins: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    fans: list[Fan] = field(default_factory=list)
    features: tuple[str, ...] = ()

    def all_nodes(self) -> dict[str, Body | Mount]:
        """Path -> node, those of mounted graphs included."""
        found: dict[str, Body | Mount] = {}
        for node in self.nodes.values():
            found[node.node] = node
            if isinstance(node, Mount):
                found.update(node.blueprint.all_nodes())
        return found

    def build(self, chosen: Mapping[str, Body | Mount] | None = None) -> type_builder:
        """The builder, with other nodes in some places (by path)."""
        return self._build(chosen or {}, schema(self.features))

    def compile(self) -> Any:
        """As a user with a store or a cache hands it over: compiled."""
        return self.build().compile(**self.resources())

    def resources(self) -> dict[str, Any]:
        """A store and a cache, both empty, if the graph uses them."""
        made: dict[str, Any] = {}
        if "store" in self.features:
            made["store"] = InMemoryStore()
        if "cache" in self.features:
            made["cache"] = InMemoryCache()
        return made

    def _build(self, chosen: Mapping[str, Body | Mount], state: Any) -> type_builder:
        context = Context if "context" in self.features else None
        builder = StateGraph(state, context_schema=context)
        for name, node in self.nodes.items():
            self._add(builder, name, chosen.get(node.node, node), chosen)
        for source, target in self.edges:
            builder.add_edge(source, target)
        for sources, target in self.joins:
            builder.add_edge(list(sources), target)
        for branch in self.branches:
            builder.add_conditional_edges(branch.source, _router(branch.targets), branch.targets)
        for loop in self.loops:
            builder.add_conditional_edges(loop.source, _again(loop), [loop.back, loop.on])
        for fan in self.fans:
            builder.add_conditional_edges(fan.source, _sender(fan), [fan.target])
        return builder

    def _add(
        self,
        builder: type_builder,
        name: str,
        node: Body | Mount,
        chosen: Mapping[str, Body | Mount],
    ) -> None:
        place = self.places.get(name, Place())
        declared: dict[str, Any] = {"defer": place.defer}
        if place.destinations:
            declared["destinations"] = place.destinations
        if place.retry:
            declared["retry_policy"] = ONE_MORE
        if place.timeout:
            declared["timeout"] = place.timeout
        if place.cached:
            declared["cache_policy"] = CachePolicy(key_func=_cache_key)
        if place.handled:
            assert isinstance(node, Body)
            declared["error_handler"] = handler(node)
        builder.add_node(name, implementation(node, chosen), **declared)


def implementation(node: Body | Mount, chosen: Mapping[str, Body | Mount] | None = None) -> Any:
    """What is put in a node's place: a function or a compiled graph."""
    if isinstance(node, Body):
        return make_body(node)
    features = (*node.blueprint.features, *(("own",) if node.own else ()))
    builder = node.blueprint._build(chosen or {}, schema(features, last=node.last))
    if not node.called:
        return builder.compile(checkpointer=True if node.memory else None)
    return _caller(node, builder.compile())


def _caller(node: Mount, graph: Any) -> Callable[..., Any]:
    """A function that calls a graph with a state of its own: one node body, whatever is in it."""
    body = Body(node.node, node.variant)

    takes_items = "send" in node.blueprint.features

    async def call(state: dict[str, Any]) -> Any:
        if node.counted:
            count(body)
        given = {"log": [*state.get("log", ())][-2:], "total": state.get("total", 0)}
        if takes_items:
            given["item"] = state.get("item", 0)
        made = await graph.ainvoke(given)
        return {"log": made["log"][2:], "total": made["total"], "visits": {body.name: 1}}

    return call


def _router(targets: Sequence[str]) -> Callable[[Any], str]:
    names = tuple(targets)

    def route(state: Any) -> str:
        return names[state["total"] % len(names)]

    return route


def _again(loop: Loop) -> Callable[[Any], str]:
    def route(state: Any) -> str:
        times = loop.times + state["total"] % 2
        return loop.back if state["visits"].get(loop.source, 0) < times else loop.on

    return route


def _sender(fan: Fan) -> Callable[[Any], list[Send]]:
    def send(state: Any) -> list[Send]:
        above = 10 * state.get("item", 0) if state.get("item", 0) < 100 else 0
        return [
            Send(fan.target, {"log": ["sent"], "total": number, "item": above + number + 1})
            for number in range(1 + state["total"] % fan.most)
        ]

    return send


def _cache_key(state: Any) -> str:
    """All that a pure body and the router behind it look at: a hit replays both."""
    return f"{state.get('total', 0)}/{sorted(state.get('visits', {}).items())}"


@dataclass(frozen=True, repr=False)
class Request(Brief):
    """A graph, the variants of its nodes, a matrix over them, and the answers to its questions: so
    many of a list, or a function."""

    blueprint: Blueprint
    variants: tuple[Body | Mount, ...]
    matrix: Any
    answers: int | Callable[[Any], str] = 0
    racy: bool = False

    def case(self) -> dict[str, Any]:
        """The one case."""
        case: dict[str, Any] = {"id": "c", "state": {"log": ["in"]}}
        if callable(self.answers):
            return {**case, "answers": self.answers}
        return {**case, "answers": self.listed()} if self.answers else case

    def listed(self) -> list[str]:
        """The answers of a list."""
        return [] if callable(self.answers) else [f"A{k}" for k in range(self.answers)]
