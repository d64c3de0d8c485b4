"""From a filter to the cells it means: patterns against what exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from wtb_prefect.domain.batch_test import Case
from wtb_prefect.domain.cell_filter import CellFilter
from wtb_prefect.errors import InvalidInputError, NotFoundError


@dataclass(frozen=True, slots=True)
class CellChoice:
    """The cases and combinations whose cells are chosen."""

    cases: frozenset[str]
    combinations: frozenset[str]

    def has(self, case_id: str, combination: str) -> bool:
        """Whether the cells of a case and combination are chosen."""
        return case_id in self.cases and combination in self.combinations


def tags_of(cases: Iterable[Case]) -> dict[str, tuple[str, ...]]:
    """Case id -> tags, in the order of the cases."""
    return {case.id: case.tags for case in cases}


def choose_cells(
    only: CellFilter | None, cases: Mapping[str, Sequence[str]], combinations: Sequence[str]
) -> CellChoice | None:
    """What a filter chooses of cases (id -> tags) and combinations; None: there is no filter.

    Raises:
        NotFoundError: a name, pattern or tag that fits nothing.
        InvalidInputError: all of them exist, but no case has all that is asked for.
    """
    if not only:
        return None
    found = _fitting("case", only.cases, list(cases))
    tagged = _tagged(only.tags, cases)
    chosen = [case_id for case_id in cases if case_id in found and case_id in tagged]
    if not chosen:
        raise InvalidInputError(
            f"the filter leaves no case: none of {', '.join(only.cases)} has a tag of "
            f"{', '.join(only.tags)}"
        )
    return CellChoice(
        cases=frozenset(chosen[: only.limit]),
        combinations=_fitting("combination", only.combinations, combinations),
    )


def _fitting(kind: str, patterns: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    if not patterns:
        return frozenset(names)
    found: set[str] = set()
    for pattern in patterns:
        # A name that is spelled out is meant as it is, also where it looks like a pattern.
        fits = [pattern] if pattern in names else [n for n in names if fnmatchcase(n, pattern)]
        if not fits:
            raise NotFoundError(kind, pattern, names)
        found.update(fits)
    return frozenset(found)


def _tagged(tags: Sequence[str], cases: Mapping[str, Sequence[str]]) -> frozenset[str]:
    if not tags:
        return frozenset(cases)
    known = {tag for found in cases.values() for tag in found}
    for tag in tags:
        if tag not in known:
            raise NotFoundError("tag of a case", tag, known)
    return frozenset(case_id for case_id, found in cases.items() if set(tags) & set(found))
