"""How a batch is run, as the front doors take it: checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from wtb_prefect.domain.batch_test import RunOptions
from wtb_prefect.errors import InvalidInputError


class RunSettings(TypedDict, total=False):
    """The arguments of `TestBench.batch` that say how to run; see `RunOptions`."""

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
    checked = settings.get("self_check", 0)
    if not isinstance(checked, int) or isinstance(checked, bool) or checked < 0:
        raise InvalidInputError(f"self_check is {checked!r}; 0 or more is needed")
    return RunOptions(
        keep_stale=settings.get("keep_stale", False),
        use_cache=settings.get("use_cache", True),
        record=tuple(dict.fromkeys(record)),
        self_check=checked,
    )
