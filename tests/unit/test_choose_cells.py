"""What a filter means: names, patterns, tags, and the first cases of them."""

from __future__ import annotations

from typing import Any

import pytest

from wtb_prefect import CellFilter
from wtb_prefect.application.choose_cells import CellChoice, choose_cells
from wtb_prefect.errors import InvalidInputError, NotFoundError

CASES = {"b1": ("hard", "long"), "a1": ("easy",), "a2": (), "a[2]": ("hard",)}
COMBINATIONS = ["baseline", "answer=short", "answer=short,retrieve=bm25"]


def chosen(**only: Any) -> CellChoice:
    choice = choose_cells(CellFilter(**only), CASES, COMBINATIONS)
    assert choice is not None
    return choice


@pytest.mark.parametrize(
    ("only", "cases"),
    [
        ({"cases": ("a1",)}, {"a1"}),
        ({"cases": ("a*", "b1")}, {"a1", "a2", "a[2]", "b1"}),
        ({"cases": ("a[2]",)}, {"a[2]"}),
        ({"cases": ("a[12]",)}, {"a1", "a2"}),
        ({"tags": ("hard",)}, {"b1", "a[2]"}),
        ({"tags": ("easy", "long")}, {"b1", "a1"}),
        ({"tags": ("hard",), "cases": ("a*",)}, {"a[2]"}),
        ({"limit": 2}, {"b1", "a1"}),
        ({"limit": 1, "cases": ("a*",)}, {"a1"}),
        ({"limit": 9, "tags": ("hard",)}, {"b1", "a[2]"}),
    ],
)
def test_cases(only: dict[str, Any], cases: set[str]) -> None:
    choice = chosen(**only)
    assert choice.cases == cases
    assert choice.combinations == set(COMBINATIONS)


def test_combinations() -> None:
    choice = chosen(combinations=("answer=short*",))
    assert choice.combinations == {"answer=short", "answer=short,retrieve=bm25"}
    assert choice.has("a1", "answer=short")
    assert not choice.has("a1", "baseline")
    assert chosen(combinations=("answer=short",)).combinations == {"answer=short"}


def test_no_filter_is_none() -> None:
    assert choose_cells(None, CASES, COMBINATIONS) is None
    assert choose_cells(CellFilter(), CASES, COMBINATIONS) is None


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"cases": ("c*",)}, "no case 'c*'; there is: a1, a2"),
        ({"cases": ("a1", "A1")}, "no case 'A1'"),
        ({"combinations": ("short",)}, "no combination 'short'; there is: answer=short"),
        ({"tags": ("hard", "soft")}, "no tag of a case 'soft'; there is: easy, hard, long"),
    ],
)
def test_what_fits_nothing_is_named(only: dict[str, Any], message: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        chosen(**only)
    assert message in str(caught.value)


def test_a_filter_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="none of a1 has a tag of hard"):
        chosen(cases=("a1",), tags=("hard",))


@pytest.mark.parametrize(
    "only",
    [{"limit": 0}, {"limit": True}, {"limit": "2"}, {"cases": (1,)}, {"tags": 7}],
)
def test_bad_filters_are_refused(only: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="the filter's"):
        CellFilter(**only)


def test_a_filter_travels_as_json() -> None:
    only = CellFilter(cases=("a*",), tags=("hard",), limit=2)
    assert CellFilter.from_json(only.to_json()) == only
    assert CellFilter.from_json({"cases": "a*"}) == CellFilter(cases=("a*",))
    with pytest.raises(NotFoundError, match="no part of a filter 'case'; there is: cases, comb"):
        CellFilter.from_json({"case": "a*"})
