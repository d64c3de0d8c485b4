"""Drawing requests: a graph block by block, variants of some of its nodes, a matrix over them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from langgraph.graph import END, START

from generated.blueprint import Blueprint, Branch, Fan, Loop, Mount, Place, Request
from generated.bodies import Body, answer_to

KEYS = ("messages", "delta", "store", "context", "steps left", "last step")
"""Features that a node may use; the others are shapes of graphs."""

LIMITS = frozenset({"steps left", "last step", "recursion"})
"""Features that see how many super-steps may follow."""

DEEPEST = 2
"""Levels of graphs below the top one."""


class Maker:
    """Draws a blueprint block by block; each block begins at one node and ends at one node.

    `alone`: nothing runs beside this graph. `counted`: its nodes count as node bodies.
    """

    def __init__(
        self,
        draw: Any,
        features: frozenset[str],
        numbers: Iterator[int],
        path: str = "",
        *,
        alone: bool = True,
        counted: bool = True,
    ) -> None:
        self.draw = draw
        self.features = features
        self.numbers = numbers
        self.path = path
        self.depth = len(path.split("|")) if path else 0
        self.made = Blueprint(features=tuple(sorted(features)))
        self.counted = counted
        # After branches of different length met at a plain join, nodes may overlap themselves.
        self.ordered = alone
        self.in_loop = False

    def chance(self, one_in: int) -> bool:
        return bool(self.draw(st.integers(1, one_in)) == one_in)

    def has(self, feature: str, one_in: int = 3) -> bool:
        """Whether a feature that is on is used here."""
        return feature in self.features and self.chance(one_in)

    def name(self) -> str:
        return f"n{next(self.numbers):02}"

    def path_of(self, name: str) -> str:
        return f"{self.path}|{name}" if self.path else name

    def node(self, *, alone: bool, plain: bool = False) -> str:
        """A function, or a graph mounted in its place."""
        deep = self.depth >= DEEPEST or plain
        if not deep and self.counted and self.has("subgraph", 4):
            return self.mount(alone=alone)
        name = self.name()
        place, body = self.plain(name, alone=alone and self.ordered)
        self.made.nodes[name] = body
        if place != Place():
            self.made.places[name] = place
        return name

    def plain(self, name: str, *, alone: bool) -> tuple[Place, Body]:
        earlier = [n for n, known in self.made.nodes.items() if isinstance(known, Body)]
        kind = self.draw(st.sampled_from(("plain", "plain", "shared", "removes")))
        body = Body(
            node=self.path_of(name),
            is_async=self.draw(st.booleans()),
            alone=alone,
            shared=alone and kind == "shared",
            removes=self.draw(st.sampled_from(earlier))
            if alone and kind == "removes" and earlier
            else None,
            uses=tuple(key for key in (*KEYS, "own") if self.has(key, 2)),
            counted=self.counted,
        )
        return self.special(body, alone=alone)

    def special(self, body: Body, *, alone: bool) -> tuple[Place, Body]:
        """What only some nodes have: retries, handlers, time limits, caches, questions, errors."""
        if self.has("retry", 4):
            tries = (0, 1, 2, 9) if alone else (0, 1, 2)
            return Place(retry=True), replace(body, fails=self.draw(st.sampled_from(tries)))
        if alone and self.has("handler", 4):
            raises = self.draw(st.booleans())
            return Place(handled=True), replace(body, raises=raises)
        if self.has("cache", 2):
            return Place(cached=True), Body(
                body.node, is_async=body.is_async, alone=alone, pure=True, counted=body.counted
            )
        if alone and self.has("timeout", 9):
            hangs = self.draw(st.booleans())
            seconds = 0.02 if hangs else 30.0  # a busy machine makes nobody else late
            return Place(timeout=seconds), replace(body, is_async=True, timed=True, hangs=hangs)
        asks = self.draw(st.integers(1, 2)) if self.asks(alone=alone) else 0
        raises = (alone or "errors beside" in self.features) and self.has("errors", 12)
        return Place(), replace(body, asks=asks, raises=raises)

    def asks(self, *, alone: bool) -> bool:
        return self.has("questions", 3) and (alone or "questions beside" in self.features)

    def mount(self, *, alone: bool) -> str:
        name = self.name()
        alone = alone and self.ordered
        called = self.has("called", 3)
        inner = self.inner(name, alone=alone, called=called)
        inner.graph(1)
        self.made.nodes[name] = Mount(
            node=self.path_of(name),
            blueprint=inner.made,
            memory=alone and not called and self.has("memory", 3),
            called=called,
            last=alone,
            own="own" in inner.features,
            counted=self.counted,
        )
        return name

    def inner(self, name: str, *, alone: bool, called: bool = False) -> Maker:
        features = self.features
        if called:
            features -= {"questions", "steps left", "last step", "delta", "errors"}
        if self.has("subgraph", 2):
            features |= {"own"}
        return Maker(
            self.draw,
            features,
            self.numbers,
            self.path_of(name),
            alone=alone,
            counted=self.counted and not called,
        )

    def graph(self, most: int) -> str:
        """A whole graph of one to `most` blocks; gives its last node."""
        end = self.node(alone=True, plain=not self.path)  # something there is to vary
        self.made.edges.append((START, end))
        for _ in range(self.draw(st.integers(1, most))):
            end = self.draw(st.sampled_from(self.blocks()))(end)
        return end

    def blocks(self) -> list[Any]:
        found = [self.line, self.branch, self.parallel, self.loop]
        found += [self.fan, self.fan] if "send" in self.features else []
        found += [self.command] if "command" in self.features else []
        found += [self.deferred] if "defer" in self.features else []
        found += [self.endless] if self.has("recursion", 3) else []
        if "parent command" in self.features and self.depth < DEEPEST:
            found += [self.leaving]
        return found

    def chain(self, start: str, length: int, *, alone: bool) -> str:
        for _ in range(length):
            following = self.node(alone=alone)
            self.made.edges.append((start, following))
            start = following
        return start

    def line(self, start: str) -> str:
        return self.chain(start, self.draw(st.integers(1, 2)), alone=True)

    def heads(self) -> tuple[list[str], list[str]]:
        """First and last nodes of two or three ways of which one is taken."""
        heads, tails = [], []
        for _ in range(self.draw(st.integers(2, 3))):
            heads.append(self.node(alone=True))
            tails.append(self.chain(heads[-1], self.draw(st.integers(0, 1)), alone=True))
        return heads, tails

    def branch(self, start: str) -> str:
        heads, tails = self.heads()
        ends = self.draw(st.booleans())
        self.made.branches.append(Branch(start, (*heads, END) if ends else tuple(heads)))
        after = self.node(alone=True)
        self.made.edges += [(tail, after) for tail in tails]
        return after

    def command(self, start: str) -> str:
        """A node that chooses the way itself."""
        name = self.name()
        _, body = self.plain(name, alone=True and self.ordered)
        heads, tails = self.heads()
        self.made.edges.append((start, name))
        self.made.nodes[name] = replace(
            Body(body.node, is_async=body.is_async, alone=body.alone, counted=body.counted),
            goto=tuple(heads),
        )
        self.made.places[name] = Place(destinations=tuple(heads))
        after = self.node(alone=True)
        self.made.edges += [(tail, after) for tail in tails]
        return after

    def leaving(self, start: str) -> str:
        """A mounted graph whose last node says where its parent goes on."""
        name, after = self.name(), self.node(alone=True)
        inner = self.inner(name, alone=self.ordered)
        end, last = inner.graph(1), inner.name()
        inner.made.edges.append((end, last))
        inner.made.nodes[last] = Body(
            inner.path_of(last),
            alone=inner.ordered,
            goto=(after,),
            parent=True,
            counted=self.counted,
        )
        self.made.nodes[name] = Mount(
            self.path_of(name),
            inner.made,
            last=self.ordered,
            own="own" in inner.features,
            counted=self.counted,
        )
        self.made.places[name] = Place(destinations=(after,))
        self.made.edges.append((start, name))
        return after

    def parallel(self, start: str) -> str:
        tails, lengths = self.side_by_side(start)
        waiting = self.draw(st.booleans())
        if not waiting and len(set(lengths)) > 1:
            self.ordered = False
        after = self.node(alone=True)
        if waiting:
            self.made.joins.append((tuple(tails), after))
        else:
            self.made.edges += [(tail, after) for tail in tails]
        return after

    def side_by_side(self, start: str) -> tuple[list[str], list[int]]:
        tails, lengths = [], []
        for _ in range(self.draw(st.integers(2, 3))):
            lengths.append(self.draw(st.integers(1, 2)))
            tails.append(self.chain(start, lengths[-1], alone=False))
        return tails, lengths

    def deferred(self, start: str) -> str:
        """Ways of different length whose end waits for all of them without a waiting edge."""
        tails, _ = self.side_by_side(start)
        after = self.node(alone=True, plain=True)
        place = self.made.places.get(after, Place())
        self.made.places[after] = replace(place, defer=True)
        self.made.edges += [(tail, after) for tail in tails]
        return after

    def fan(self, start: str) -> str:
        """Items sent to one node, or to one mounted graph, and a node after all of them."""
        target = self.node(alone=False)
        self.made.fans.append(Fan(start, target, self.draw(st.integers(2, 3))))
        after = self.node(alone=True)
        self.made.edges.append((target, after))
        return after

    def loop(self, start: str) -> str:
        head = self.chain(start, 1, alone=True)
        tail = self.ending(head)
        after = self.node(alone=True)
        self.made.loops.append(Loop(tail, head, after, self.draw(st.integers(1, 2))))
        return after

    def ending(self, head: str) -> str:
        """The end of a loop is a function: it counts its visits."""
        if isinstance(self.made.nodes[head], Body) and self.draw(st.booleans()):
            return head
        tail = self.node(alone=True, plain=True)
        self.made.edges.append((head, tail))
        return tail

    def endless(self, start: str) -> str:
        """A loop that meets the limit of super-steps."""
        head = self.node(alone=True, plain=True)
        self.made.edges.append((start, head))
        after = self.node(alone=True)
        self.made.loops.append(Loop(head, head, after, 40))
        return after


@st.composite
def requests(draw: Any, features: Collection[str]) -> Request:
    """A graph of one to three blocks with some of the features, and a matrix over its nodes."""
    used = frozenset(feature for feature in sorted(features) if draw(st.integers(0, 2)))
    if {"questions", "subgraph"} <= used:
        # After an answer LangGraph counts a subgraph's super-steps from where it stood then; a fork
        # inside of it counts from the fork, and may take more of them.
        used -= LIMITS
    maker = Maker(draw, used, itertools.count())
    maker.graph(2 if "subgraph" in used else 3)
    nodes = {path: node for path, node in maker.made.all_nodes().items() if _varies(node, used)}
    few = 3 if len(nodes) < 12 else 2  # a large graph three times over is slow
    varied = draw(st.lists(st.sampled_from(sorted(nodes)), min_size=1, max_size=few, unique=True))
    varied = [path for path in varied if not any(path.startswith(f"{o}|") for o in varied)]
    most = 2 if len(varied) == 1 else 1  # few combinations: time is better spent on more graphs
    variants = [
        _variant(draw, used, nodes[path], name)
        for path in varied
        for name in ("a", "b")[: draw(st.integers(1, most))]
    ]
    everything = [*maker.made.all_nodes().values(), *variants]
    racy = any(isinstance(node, Body) and node.raises and not node.alone for node in everything)
    return Request(
        maker.made,
        tuple(variants),
        draw(_matrices(variants)),
        answers=_answers(draw, used),
        racy=racy,
    )


def _varies(node: Body | Mount, features: frozenset[str]) -> bool:
    if "|" in node.node and "inner variant" not in features:
        return False
    return node.counted and (isinstance(node, Body) or "mount variant" in features)


def _variant(draw: Any, features: frozenset[str], old: Body | Mount, name: str) -> Body | Mount:
    is_async, odd = draw(st.booleans()), draw(st.integers(0, 9)) == 0
    if isinstance(old, Mount):
        # A function instead of the graph; where the graph decides what follows, it has to as well.
        leaves = [n for n in old.blueprint.nodes.values() if isinstance(n, Body) and n.parent]
        goto = leaves[0].goto if leaves else ()
        return Body(old.node, name, is_async, alone=old.last, goto=goto, raises=old.last and odd)
    asks = "questions" in features and (old.alone or "questions beside" in features)
    return replace(
        old,
        variant=name,
        is_async=is_async or old.timed,
        shared=old.alone and not old.pure and draw(st.booleans()),
        removes=None,
        raises=(old.alone or "errors beside" in features) and odd,
        asks=draw(st.integers(0, 2)) if asks and not old.pure and not old.fails else 0,
    )


def _matrices(variants: Sequence[Body | Mount]) -> st.SearchStrategy[Any]:
    choices: dict[str, list[str]] = defaultdict(lambda: ["original"])
    for body in variants:
        choices[body.node].append(body.variant)
    entry = st.fixed_dictionaries({n: st.sampled_from(names) for n, names in choices.items()})
    explicit = st.lists(entry, min_size=2, max_size=6, unique_by=lambda e: tuple(sorted(e.items())))
    return st.one_of(st.just(dict.fromkeys(choices, "*")), explicit)


def _answers(draw: Any, features: frozenset[str]) -> int | Callable[[Any], str]:
    """A list, long enough or not, or a function of the question."""
    if "questions" not in features:
        return 0
    if draw(st.booleans()):
        return answer_to
    return 100 if "pause" not in features else int(draw(st.sampled_from((1, 2, 4, 100))))
