"""The reference and the comparison themselves: known graphs, and planted bugs that have to show."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from generated.alone import Level, Visit, combinations, run_alone, tree_size
from generated.blueprint import Blueprint, Fan, Loop, Mount, Place, Request
from generated.bodies import Body
from generated.compare import Tally, compare

from wtb_prefect.infrastructure.workflow.node_executors import DefaultNodeExecutor, NodeCall

START = "__start__"
INNER = Blueprint(
    nodes={"n3": Body("n2|n3", alone=True), "n4": Body("n2|n4", alone=True)},
    edges=[(START, "n3"), ("n3", "n4")],
)


def line(*names: str, **special: Body) -> Blueprint:
    """Nodes one after another."""
    nodes: dict[str, Body | Mount] = {n: special.get(n, Body(n, alone=True)) for n in names}
    return Blueprint(nodes, edges=list(zip((START, *names), names, strict=False)))


def lone(*paths: str) -> Level:
    """Visits one after another, one body each; `a(b c)` has others inside."""
    level: Level = defaultdict(list)
    for step, path in enumerate(paths, 1):
        name, _, inner = path.rstrip(")").partition("(")
        level[step].append(Visit(name, 0 if inner else 1, lone(*inner.split()) if inner else {}))
    return level


def beside(*levels: Level) -> Level:
    """The visits of several graphs in the same super-steps."""
    level: Level = defaultdict(list)
    for one in levels:
        for step, visits in one.items():
            level[step] += visits
    return level


CUBE = [{"c": c, "d": d} for c in "xyz" for d in "xyz"]
PAIR = [{"m|b": "x"}, {"m|b": "y"}]


@pytest.mark.parametrize(
    ("choices", "visits", "size"),
    [
        (CUBE, lone("a", "b", "c", "d"), 2 + 3 + 9),
        (CUBE, lone("c", "c", "c"), 3 * 3),
        (CUBE, lone("a", "b"), 2),
        (CUBE, beside(lone("c"), lone("d"), lone("s")), 1 + 3 + 9),
        (PAIR, lone("p", "m(a b c)", "q"), 1 + 1 + 2 * 3),
        (PAIR, beside(lone("m(a b)"), lone("k(f g h)", "z")), 1 + 3 + 2 * 2),
        (PAIR, beside(lone("m(a b)"), lone("m(a b)")), 2 + 2 * 2),
        (PAIR, lone("m(a b)", "m(a b)"), 1 + 2 * 3),
        ([{"m": "x"}, {"m": "y"}], lone("p", "m(a b)"), 1 + 2 * 2),
    ],
)
def test_size_of_known_trees(choices: list[dict[str, str]], visits: Level, size: int) -> None:
    """Worked out by hand: shared prefix, divergent nodes, and what follows them."""
    assert tree_size([(one, visits) for one in choices]) == size


def test_ways_that_part_without_a_reason_are_an_error() -> None:
    """Combinations that agreed so far and went different ways: the reference does not guess."""
    with pytest.raises(AssertionError, match="went different ways"):
        tree_size([({"z": "x"}, lone("a", "b")), ({"z": "y"}, lone("a", "c"))])


def test_the_reference_counts_visits_of_every_level(tmp_path: Path) -> None:
    """Bodies are put to the visit they belong to: retries, items, loops and inner nodes."""
    blueprint = Blueprint(
        nodes={
            "n0": Body("n0", alone=True, fails=1),
            "n1": Body("n1"),
            "n2": Mount("n2", INNER),
            "n5": Body("n5", alone=True),
        },
        places={"n0": Place(retry=True)},
        edges=[(START, "n0"), ("n1", "n2"), ("n2", "n5")],
        fans=[Fan("n0", "n1", 3)],
        loops=[Loop("n5", "n2", "__end__", 2)],
        features=("send",),
    )
    run = run_alone(Request(blueprint, (), [{}]), {}, tmp_path / "alone")
    steps = [[visit.name for visit in run.visits[step]] for step in sorted(run.visits)]
    items = len(steps[1])
    assert steps[0] == ["n0"]
    assert set(steps[1]) == {"n1"}
    assert steps[2:4] == [["n2"], ["n5"]]
    assert run.visits[1][0].calls == 2
    inner = run.visits[3][0].inner
    assert [visit.name for step in sorted(inner) for visit in inner[step]] == ["n3", "n4"]
    loops = len(steps[2:]) // 2
    assert run.bodies == 2 + items + 3 * loops
    assert run.status == "completed"


def test_a_graph_with_memory_has_its_visits_apart(tmp_path: Path) -> None:
    """Its checkpoints are in one place for all visits; the reference must not mix them."""
    blueprint = Blueprint(
        nodes={"n2": Mount("n2", INNER, memory=True), "n5": Body("n5", alone=True)},
        edges=[(START, "n2"), ("n2", "n5")],
        loops=[Loop("n5", "n2", "__end__", 2)],
    )
    run = run_alone(Request(blueprint, (), [{}]), {}, tmp_path / "alone")
    visits = [visit for step in sorted(run.visits) for visit in run.visits[step]]
    inside = [
        [v.name for s in sorted(visit.inner) for v in visit.inner[s]]
        for visit in visits
        if visit.name == "n2"
    ]
    assert len(inside) >= 2
    assert all(names == ["n3", "n4"] for names in inside)


def test_answers_in_the_order_of_tasks(tmp_path: Path) -> None:
    """The k-th question gets the k-th answer, and without one the run is paused."""
    blueprint = Blueprint(
        nodes={
            "n0": Body("n0", alone=True, asks=1),
            "n1": Body("n1", asks=1),
            "n2": Body("n2", asks=2),
            "n3": Body("n3", alone=True),
        },
        edges=[(START, "n0"), ("n0", "n1"), ("n0", "n2"), ("n1", "n3"), ("n2", "n3")],
    )
    enough = Request(blueprint, (), [{}], answers=4)
    run = run_alone(enough, {}, tmp_path / "enough")
    assert [":".join(note.split(":")[3:]) for note in run.state["log"][1:]] == [
        "A0",
        "A1",
        "A2:A3",
        "",
    ]
    assert run.bodies == 2 + 2 + 3 + 1
    paused = run_alone(Request(blueprint, (), [{}], answers=1), {}, tmp_path / "paused")
    assert paused.status == "paused"


def test_answers_inside_a_mounted_graph_in_the_order_of_tasks(tmp_path: Path) -> None:
    """Not in the order in which its nodes come to ask, which differs from run to run."""
    inner = Blueprint(
        nodes={f"n{n}": Body(f"n0|n{n}", is_async=n % 2 == 0, asks=1) for n in range(1, 9)},
        edges=[(START, f"n{n}") for n in range(1, 9)],
    )
    nodes: dict[str, Body | Mount] = {
        "n0": Mount("n0", inner, last=False),
        "n9": Body("n9", alone=True),
    }
    blueprint = Blueprint(nodes, edges=[(START, "n0"), ("n0", "n9")])
    varied = (Body("n9", "a", alone=True),)
    tally = Tally()
    compare(Request(blueprint, varied, {"n9": "*"}, answers=8), tmp_path / "a", tmp_path, tally)
    assert (tally.shareable, tally.shared) == (1, 1)


REQUEST = Request(
    line("n0", "n1", "n2", "n3"), (Body("n2", "a", alone=True, shared=True),), {"n2": "*"}
)


def test_the_comparison_accepts_a_right_engine(tmp_path: Path) -> None:
    """So that what the next tests see is their planted bug."""
    assert list(combinations(REQUEST)) == ["baseline", "n2=a"]
    tally = Tally()
    compare(REQUEST, tmp_path / "alone", tmp_path, tally)
    assert (tally.shareable, tally.shared) == (1, 1)


Execute = Any


def twice(execute: Execute) -> Execute:
    """A body that runs twice."""

    async def wrong(self: Any, call: NodeCall) -> Any:
        if call.node == "n1":
            await execute(self, call)
        return await execute(self, call)

    return wrong


def unseen(execute: Execute) -> Execute:
    """A body that runs behind the ledger's back."""

    async def wrong(self: Any, call: NodeCall) -> Any:
        if call.node == "n3":
            await call.proceed(call.state)
        return await execute(self, call)

    return wrong


def forgetful(execute: Execute) -> Execute:
    """A write that gets lost."""

    async def wrong(self: Any, call: NodeCall) -> Any:
        update = dict(await execute(self, call))
        if call.node == "n1":
            update.pop("log")
        return update

    return wrong


def other_past(execute: Execute) -> Execute:
    """A node that sees another past than it had."""

    async def wrong(self: Any, call: NodeCall) -> Any:
        if call.node == "n3":
            changed = NodeCall(call.node, {**call.state, "log": []}, call.proceed)
            return await execute(self, changed)
        return await execute(self, call)

    return wrong


def raising(execute: Execute) -> Execute:
    """A cell that fails where plain LangGraph completes it."""

    async def wrong(self: Any, call: NodeCall) -> Any:
        await asyncio.sleep(0)
        if call.node == "n3":
            raise ValueError("planted")
        return await execute(self, call)

    return wrong


@pytest.mark.parametrize("bug", [twice, unseen, forgetful, other_past, raising])
def test_planted_bugs_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: Any) -> None:
    """Each of them in the bench alone: shared and unshared runs agree, and are both wrong."""
    monkeypatch.setattr(DefaultNodeExecutor, "execute", bug(DefaultNodeExecutor.execute))
    with pytest.raises(AssertionError):
        compare(REQUEST, tmp_path / "alone", tmp_path, Tally())
