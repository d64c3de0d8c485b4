"""Choosing some cells of a batch, without making another batch of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from wtb_prefect.errors import InvalidInputError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFilter:
    """Which cells of a request to run now, or to show; a part left empty chooses everything.

    `cases` and `combinations` are names, or patterns with `*`, `?` and `[...]`; a case needs one of
    the `tags`; `limit` is the number of cases, the first ones in the order of the request, so that
    whole rows of the comparison are complete.

    Raises:
        InvalidInputError: a part is of another type, or `limit` is below 1.
    """

    cases: tuple[str, ...] = ()
    combinations: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("cases", "combinations", "tags"):
            given: Any = getattr(self, name)
            names = (given,) if isinstance(given, str) else given
            if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
                raise InvalidInputError(f"the filter's {name} are texts, not {given!r}")
            object.__setattr__(self, name, tuple(names))
        limit: Any = self.limit
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InvalidInputError(f"the filter's limit is {limit!r}; at least 1 case is needed")

    def __bool__(self) -> bool:
        return bool(self.cases or self.combinations or self.tags or self.limit)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, as the ledger keeps them with the request."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> CellFilter:
        """From what `to_json` gave, or from as much of it as is said."""
        known = [field.name for field in fields(CellFilter)]
        for name in data:
            if name not in known:
                raise NotFoundError("part of a filter", name, known)
        return CellFilter(**data)
