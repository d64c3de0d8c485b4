"""From a matrix to combinations, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from wtb_prefect.application.matrix import expand_matrix
from wtb_prefect.errors import InvalidInputError, NotFoundError

NODES = ("a", "b", "c")
VARIANTS = {"a": ("x", "y"), "b": ("z",)}


def names(matrix: Any) -> list[str]:
    return [combination.name for combination in expand_matrix(matrix, NODES, VARIANTS)]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (None, ["baseline"]),
        ({}, ["baseline"]),
        ({"a": "*"}, ["baseline", "a=x", "a=y"]),
        ({"a": "x"}, ["a=x"]),
        ({"c": "*"}, ["baseline"]),
        ({"b": ["z", "original"], "a": ["y"]}, ["a=y,b=z", "a=y"]),
        ([{"b": "z", "a": "x"}, {}], ["a=x,b=z", "baseline"]),
        (({"a": "x"},), ["a=x"]),
    ],
)
def test_combinations_have_canonical_names_in_the_order_of_the_request(
    matrix: Any, expected: list[str]
) -> None:
    """Non-original choices sorted by node."""
    assert names(matrix) == expected


def test_explicit_combinations_keep_the_original_of_nodes_they_do_not_name() -> None:
    """All combinations are over the same nodes."""
    found = expand_matrix([{"a": "x"}, {"b": "z"}], NODES, VARIANTS)
    assert [c.choices for c in found] == [
        (("a", "x"), ("b", "original")),
        (("a", "original"), ("b", "z")),
    ]


@pytest.mark.parametrize(
    ("matrix", "line"),
    [
        ({"d": "*"}, "no node 'd'; there is: a, b, c"),
        ({"a": ["q"]}, "no variant of node 'a' 'q'; there is: original, x, y"),
        ({"a": ["*", "x"]}, "no variant of node 'a' '*'"),
        ({"a": [1]}, "no variant of node 'a' '1'"),
        ([{"d": "x"}], "no node 'd'"),
        ([{"a": "q"}], "no variant of node 'a' 'q'"),
        ([{"a": ["x"]}], "no variant of node 'a'"),
    ],
)
def test_unknown_names_are_refused_with_those_that_exist(matrix: Any, line: str) -> None:
    """One line: what was asked, what there is."""
    with pytest.raises(NotFoundError) as refused:
        names(matrix)
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("matrix", "line"),
    [
        ({"a": []}, "names no variant for node 'a'"),
        ({"a": None}, "gives node 'a' None"),
        ({"a": 3}, "gives node 'a' 3"),
        ({"a": ["x", "x"]}, "'x' of node 'a' twice"),
        ([], "empty list"),
        ([{"a": "x"}, {"a": "x", "b": "original"}], "'a=x' twice"),
        (["a=x"], "a combination is a mapping"),
        ("a=x", "a matrix is a mapping"),
        (7, "a matrix is a mapping"),
    ],
)
def test_matrices_that_mean_nothing_are_refused(matrix: Any, line: str) -> None:
    """Nothing named, something named twice, or no matrix at all."""
    with pytest.raises(InvalidInputError) as refused:
        names(matrix)
    assert line in str(refused.value)
