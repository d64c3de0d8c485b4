"""From a matrix to combinations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from wtb_prefect.domain.batch_test import VariantCombination
from wtb_prefect.domain.workflow import ORIGINAL
from wtb_prefect.errors import InvalidInputError, NotFoundError

Matrix = Mapping[str, str | Sequence[str]] | Sequence[Mapping[str, str]]


def expand_matrix(
    matrix: Matrix | None, nodes: Sequence[str], variants: Mapping[str, Sequence[str]]
) -> tuple[VariantCombination, ...]:
    """The combinations a matrix means, each over the nodes that the matrix names.

    Args:
        matrix: mapping node -> variant names (or `"*"`), or a list of explicit combinations;
            None (or no node at all) is the baseline alone.
        nodes: the graph's nodes.
        variants: registered variant names by node, `original` not included.

    Raises:
        NotFoundError: an unknown node or variant.
        InvalidInputError: an empty list or choice, or something named twice.
    """
    if matrix is None:
        return (VariantCombination(()),)
    if isinstance(matrix, Mapping):
        return _product(matrix, nodes, variants)
    if not isinstance(matrix, (list, tuple)):
        raise InvalidInputError(
            "a matrix is a mapping node -> variants or a list of combinations, "
            f"not {type(matrix).__name__}"
        )
    return _explicit(matrix, nodes, variants)


def _product(
    matrix: Mapping[str, str | Sequence[str]],
    nodes: Sequence[str],
    variants: Mapping[str, Sequence[str]],
) -> tuple[VariantCombination, ...]:
    axes = [
        [(node, name) for name in _choices(node, wanted, nodes, variants)]
        for node, wanted in matrix.items()
    ]
    return tuple(VariantCombination(tuple(sorted(cell))) for cell in itertools.product(*axes))


def _choices(
    node: str,
    wanted: str | Sequence[str],
    nodes: Sequence[str],
    variants: Mapping[str, Sequence[str]],
) -> list[str]:
    known = _known(node, nodes, variants)
    if wanted == "*":
        return known
    if not isinstance(wanted, Sequence):
        raise InvalidInputError(
            f"the matrix gives node {node!r} {wanted!r}, not a list of variants or '*'"
        )
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise InvalidInputError(f"the matrix names no variant for node {node!r}")
    for name in names:
        _check(node, name, known)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"the matrix names variant {twice!r} of node {node!r} twice")
    return names


def _explicit(
    matrix: Sequence[Mapping[str, str]],
    nodes: Sequence[str],
    variants: Mapping[str, Sequence[str]],
) -> tuple[VariantCombination, ...]:
    if not matrix:
        raise InvalidInputError("the matrix is an empty list: it names no combination")
    combinations: dict[str, VariantCombination] = {}
    named = sorted({node for entry in matrix for node in _entry(entry)})
    for entry in matrix:
        for node, name in entry.items():
            _check(node, name, _known(node, nodes, variants))
        combination = VariantCombination.of({n: entry.get(n, ORIGINAL) for n in named})
        if combination.name in combinations:
            raise InvalidInputError(f"the matrix lists combination {combination.name!r} twice")
        combinations[combination.name] = combination
    return tuple(combinations.values())


def _entry(entry: object) -> Mapping[str, str]:
    if not isinstance(entry, Mapping):
        raise InvalidInputError(f"a combination is a mapping node -> variant, not {entry!r}")
    return entry


def _known(node: str, nodes: Sequence[str], variants: Mapping[str, Sequence[str]]) -> list[str]:
    if node not in nodes:
        raise NotFoundError("node", node, nodes)
    return [ORIGINAL, *variants.get(node, ())]


def _check(node: str, name: object, known: Sequence[str]) -> None:
    if not isinstance(name, str) or name not in known:
        raise NotFoundError(f"variant of node {node!r}", str(name), known)
