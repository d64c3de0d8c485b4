"""Ids of checkpoints in the order in which they were made, whatever the clock says.

LangGraph makes them from the time and takes the largest for the newest; a rewind removes what is
larger than the head. After a clock was set back, or on a machine whose clock is behind, a new
checkpoint would be smaller than those it follows, and these would be removed in its place.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langgraph.checkpoint.base import id as ids

_LANGGRAPH: Any = ids
"""Its last time is private; the test of this module fails if it is not what ids go on from."""


def continue_after(checkpoint_id: str) -> None:
    """Ids that this process makes from now on are larger than this one."""
    made = _time_of(checkpoint_id)
    last = _LANGGRAPH._last_v6_timestamp
    if made is not None and (last is None or last < made):
        _LANGGRAPH._last_v6_timestamp = made


def _time_of(checkpoint_id: str) -> int | None:
    """In units of 100 ns; None for an id that was not made from the time."""
    try:
        found = UUID(checkpoint_id)
    except ValueError:
        return None
    if found.version != 6:
        return None
    # Version 6 has the bits of the time in their order: 48, then, after the version, 12 more.
    return (found.int >> 80) << 12 | (found.int >> 64) & 0x0FFF
