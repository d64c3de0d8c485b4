"""What differs between two checkpoints: keys of the state, and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wtb_prefect.application.compare_files import FileDifference, compare_files
from wtb_prefect.application.read_history import find_point, read_files, read_history
from wtb_prefect.application.read_state import holder_of
from wtb_prefect.application.session import Session
from wtb_prefect.domain.identifiers import thread_id

_NOTHING = object()

Point = tuple[str, str | None]
"""An execution, and one of its checkpoints (None: where it stands)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What the second checkpoint has otherwise than the first.

    `state` maps each key that differs to (first, second), None where a key is missing.
    """

    state: Mapping[str, tuple[Any, Any]]
    files: FileDifference

    @property
    def is_empty(self) -> bool:
        """Whether both hold the same."""
        return not (self.state or self.files.added or self.files.removed or self.files.changed)


def compare_points(first: Point, second: Point, session: Session) -> Difference:
    """The difference of two checkpoints; ids of messages apart, which are drawn at random.

    Raises:
        NotFoundError: no such execution, or no such checkpoint of it.
    """
    one, two = values_at(first, session), values_at(second, session)
    state = {
        key: (one.get(key), two.get(key))
        for key in sorted({*one, *two})
        if session.engine.difference(one.get(key, _NOTHING), two.get(key, _NOTHING), key)
    }
    files = [read_files(session.open_uow, *point) for point in (first, second)]
    return Difference(state=state, files=compare_files(*files))


def values_at(point: Point, session: Session) -> Mapping[str, Any]:
    """The state at a checkpoint; empty before the first.

    Raises:
        NotFoundError: no such execution, or no such checkpoint of it.
        InvalidInputError: the checkpoint was pruned.
    """
    execution_id, checkpoint_id = point
    if checkpoint_id is not None:
        execution_id, place = find_point(session.open_uow, execution_id, checkpoint_id)
    else:
        latest = read_history(session.open_uow, execution_id).latest
        if latest is None:
            return {}
        place = latest
    thread = thread_id(holder_of(execution_id, place, session))
    return session.engine.state(thread, place.checkpoint_id).values
