"""How a batch is run, as the front doors take it: checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

from wtb_prefect.domain.batch_test import RunOptions
from wtb_prefect.errors import InvalidInputError


class RunSettings(TypedDict, total=False):
    """The arguments of `TestBench.batch` that say how to run; see `RunOptions`."""

    time_limit: float | None
    retries: int
    retry_failed: bool
    fail_fast: bool
    keep_stale: bool
    use_cache: bool
    record: Sequence[str]
    self_check: int


def run_options(settings: RunSettings) -> RunOptions:
    """The options; what is not given has its default.

    Raises `InvalidInputError` for one that does not exist or has a value it cannot have.
    """
    known = RunSettings.__annotations__
    for name in settings:
        if name not in known:
            raise InvalidInputError(f"no option {name!r}; there is: {', '.join(sorted(known))}")
    record = settings.get("record", ())
    if isinstance(record, str) or not all(isinstance(node, str) for node in record):
        raise InvalidInputError(f"record is {record!r}; a list of node names is needed")
    asked: Any = {**settings, "record": tuple(dict.fromkeys(record))}
    options = RunOptions(**asked)
    limit = options.time_limit
    if limit is not None and not _is_time(limit):
        raise InvalidInputError(f"time_limit is {limit!r}; more than 0 seconds are needed")
    for name in ("retries", "self_check"):
        number = getattr(options, name)
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise InvalidInputError(f"{name} is {number!r}; 0 or more are needed")
    return options


def _is_time(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return math.isfinite(value) and value > 0
