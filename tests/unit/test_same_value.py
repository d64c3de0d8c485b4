"""Whether a reloaded value is the saved one."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.types import Send
from pydantic import BaseModel

from wtb_prefect.infrastructure.workflow.same_value import difference


@dataclass
class Note:
    part: Any


class Page(BaseModel):
    part: Any = None


class Color(StrEnum):
    RED = "red"


class Word(str):
    __slots__ = ()


class Array:
    """As numpy's: == gives no truth value."""

    def __init__(self, *values: float, dtype: str = "f8") -> None:
        self.values, self.dtype, self.shape = values, dtype, (len(values),)

    def __eq__(self, other: object) -> Any:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]

    def tobytes(self) -> bytes:
        return repr(self.values).encode()


class Table:
    """As a data frame: neither == nor bytes."""

    def __eq__(self, other: object) -> Any:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": [1, {"b": None}], "c": "x"},
        lambda: (1, "x"),
        lambda: {1, 2},
        lambda: Note([1]),
        lambda: Page(part={"k": 1}),
        lambda: AIMessage("hi", id="1"),
        lambda: Send("n", {"a": 1}),
        lambda: float("nan"),
        lambda: Array(1.0, float("nan")),
        lambda: defaultdict(list, a=[1]),
    ],
)
def test_equal_copies_are_the_same(make: Any) -> None:
    """Also not-a-number, and arrays that refuse ==."""
    assert difference(make(), make(), "x") is None


@pytest.mark.parametrize(
    ("live", "reloaded", "words"),
    [
        ((1,), [1], "x is a tuple and comes back as a list"),
        ({"a": [(1,)]}, {"a": [[1]]}, "x['a'][0] is a tuple"),
        (Note((1,)), Note([1]), "x.part is a tuple"),
        (Page(part=(1,)), Page(part=[1]), "x.part is a tuple"),
        (Send("n", {"a": (1,)}), Send("n", {"a": [1]}), "x.arg['a'] is a tuple"),
        (Counter("a"), {"a": 1}, "Counter"),
        (OrderedDict(a=1), {"a": 1}, "OrderedDict"),
        (Word("a"), "a", "Word"),
        (1, True, "int"),
        ({Color.RED: 1}, {"red": 1}, "other keys"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "other keys"),
        ([1], [1, 2], "2 items instead of 1"),
        (1, 2, "another value"),
        (Array(1.0), Array(2.0), "another value"),
        (Array(1.0), Array(1.0, dtype="f4"), "another value"),
        (Table(), Table(), "cannot be compared"),
    ],
)
def test_differences_are_named_by_place(live: Any, reloaded: Any, words: str) -> None:
    """Types count, at any depth; what cannot be compared counts as different."""
    assert words in (difference(live, reloaded, "x") or "")
