"""How a batch is run, as the front doors take it: checked before anything is written."""

from __future__ import annotations

from typing import TypedDict

from wtb_prefect.domain.batch_test import RunOptions
from wtb_prefect.errors import InvalidInputError


class RunSettings(TypedDict, total=False):
    """The arguments of `TestBench.batch` that say how to run; see `RunOptions`."""

    keep_stale: bool
    use_cache: bool


def run_options(settings: RunSettings) -> RunOptions:
    """The options; what is not given has its default.

    Raises `InvalidInputError` for one that does not exist.
    """
    known = RunSettings.__annotations__
    for name in settings:
        if name not in known:
            raise InvalidInputError(f"no option {name!r}; there is: {', '.join(sorted(known))}")
    return RunOptions(**settings)
