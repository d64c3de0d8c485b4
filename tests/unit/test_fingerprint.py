"""What makes code the same code."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import StateGraph

from wtb_prefect.errors import NotFoundError
from wtb_prefect.infrastructure.workflow.fingerprint import OPAQUE, fingerprint_code

PROMPTS = {"short": "Answer in a line."}
STOP_WORDS = frozenset({"the", "a", "of", "and", "or", "to"})
SEEN: list[str] = []


def maker(*values: Any) -> Callable[..., Any]:
    """A node that captures values."""
    first, second, third = (*values, None, None, None)[:3]

    def node(state: Any, greeting: str = "hi") -> Any:
        return first, second, third, greeting

    return node


@dataclass(frozen=True)
class Settings:
    model: str


class Callback:
    def __init__(self, goal: int) -> None:
        self.goal = goal

    def __call__(self, state: Any) -> Any:
        return self.goal


def helper(state: Any) -> Any:
    return STOP_WORDS, PROMPTS, SEEN


def uses_helper(state: Any) -> Any:
    return helper(state)


def test_equal_code_and_values_are_equal() -> None:
    """Two closures of one factory with the same values are the same code."""
    assert fingerprint_code(maker(1, "x")) == fingerprint_code(maker(1, "x"))
    assert not fingerprint_code(maker(1, "x")).startswith(OPAQUE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (maker(1, 2, 1), maker(1, 2, 2)),
        (maker("a"), maker("b")),
        (maker([1, {"k": 2}]), maker([1, {"k": 3}])),
        (maker(Settings("small")), maker(Settings("large"))),
        (maker(1), maker(1.0)),
        (functools.partial(maker(1), greeting="a"), functools.partial(maker(1), greeting="b")),
        (functools.partial(maker(1), "a"), maker(1)),
        (lambda state: 1, lambda state: 2),
        (helper, uses_helper),
    ],
)
def test_other_values_or_source_are_other_code(one: Any, other: Any) -> None:
    """Also when an equal value was captured before, and for arguments of a partial."""
    assert fingerprint_code(one) != fingerprint_code(other)


def test_aliases_of_one_value_count_as_values() -> None:
    """Whether equal captured values are one object differs between processes."""
    shared = ["x"]
    assert fingerprint_code(maker(shared, shared)) == fingerprint_code(maker(["x"], ["x"]))


def test_a_value_that_holds_itself_ends() -> None:
    """Recursion in data and in functions."""
    endless: list[Any] = []
    endless.append(endless)

    def again(state: Any) -> Any:
        return again(state)

    assert fingerprint_code(maker(endless)) == fingerprint_code(maker(endless))
    assert fingerprint_code(again) == fingerprint_code(again)


def test_code_of_a_decorator_counts() -> None:
    """`functools.wraps` hides the wrapper from inspect, not from the fingerprint."""

    def one(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(state: Any) -> Any:
            return function(state)

        return call

    def two(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(state: Any) -> Any:
            return [function(state)]

        return call

    assert fingerprint_code(one(helper)) != fingerprint_code(two(helper))


def test_containers_of_the_module_count_by_their_text() -> None:
    """What a module collects while it runs changes nothing."""
    before = fingerprint_code(uses_helper)
    SEEN.append("a call")
    try:
        assert fingerprint_code(uses_helper) == before
    finally:
        SEEN.clear()


PROGRAM = """
from wtb_prefect.infrastructure.workflow.fingerprint import fingerprint_code
NAMES = frozenset({"a", "b", "c", "d"})
PROMPTS = {"x": "PROMPT"}
def helper(state): return PROMPTS, NAMES, {"p", "q", "r"}
def node(state): return helper(state)
if __name__ == "__main__":
    print(fingerprint_code(node))
"""


def test_the_same_in_every_process_and_other_after_an_edit(tmp_path: Path) -> None:
    """Hash randomisation does not show; an edited dict of the module does."""
    file = tmp_path / "program.py"

    def printed(prompt: str, seed: str) -> str:
        file.write_text(PROGRAM.replace('PROMPT"', f'{prompt}"'))
        done = subprocess.run(
            [sys.executable, str(file)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    assert printed("one", "1") == printed("one", "2")
    assert printed("one", "1") != printed("two", "1")


def test_what_cannot_be_read_is_opaque_unless_a_version_is_declared() -> None:
    """A lock or a client may hide anything."""
    node = maker(threading.Lock())
    assert fingerprint_code(node).startswith(OPAQUE)
    assert not fingerprint_code(node, version="1").startswith(OPAQUE)
    assert fingerprint_code(node, version="1") != fingerprint_code(node, version="2")
    assert fingerprint_code(Callback(1)).startswith(OPAQUE)


def test_a_node_of_a_graph_has_the_fingerprint_of_its_function() -> None:
    """LangGraph's wrapper adds nothing, sync or async."""
    builder = StateGraph(dict)
    node = maker(1)

    async def anode(state: Any) -> Any:
        return state

    builder.add_node("n", node)
    builder.add_node("a", anode)
    assert fingerprint_code(builder.nodes["n"].runnable) == fingerprint_code(node)
    assert fingerprint_code(builder.nodes["a"].runnable) == fingerprint_code(anode)


def test_files_it_depends_on_count(tmp_path: Path) -> None:
    """Content and paths below a folder; a missing one is refused by name."""
    (tmp_path / "prompt.txt").write_text("one")
    before = fingerprint_code(helper, depends_on=[str(tmp_path)])
    (tmp_path / "prompt.txt").write_text("two")
    assert fingerprint_code(helper, depends_on=[str(tmp_path)]) != before
    with pytest.raises(NotFoundError, match="depends_on"):
        fingerprint_code(helper, depends_on=[str(tmp_path / "missing")])
