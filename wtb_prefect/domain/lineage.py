"""What belongs to the past of a checkpoint in the middle of an execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.domain.node_boundary import NodeBoundary


def first_sequences(links: Sequence[CheckpointFileLink]) -> dict[CheckpointId, int]:
    """Checkpoint -> the first record of an execution that names it."""
    found: dict[CheckpointId, int] = {}
    for link in links:
        found.setdefault(link.checkpoint_id, link.sequence)
    return found


def place_of(boundary: NodeBoundary, sequences: Mapping[CheckpointId, int]) -> int:
    """The first record whose past a visit belongs to.

    One whose writes are pending comes right after the checkpoint it began at; one of which nothing
    is known counts from the beginning, because it cannot be told that it came later.
    """
    if (left := boundary.exit_checkpoint_id) is not None and left in sequences:
        return sequences[left]
    if (entered := boundary.entry_checkpoint_id) is not None and entered in sequences:
        return sequences[entered] + 1
    return 0


def links_until(
    links: Sequence[CheckpointFileLink], checkpoint_id: CheckpointId
) -> list[CheckpointFileLink]:
    """The records of an execution up to a checkpoint of its top graph, itself included."""
    last = first_sequences(links).get(checkpoint_id, -1)
    return [link for link in links if link.sequence <= last]


def visits_until(
    boundaries: Sequence[NodeBoundary],
    links: Sequence[CheckpointFileLink],
    checkpoint_id: CheckpointId,
) -> list[NodeBoundary]:
    """The visits behind a checkpoint of an execution; those pending at it are not among them."""
    sequences = first_sequences(links)
    last = sequences.get(checkpoint_id, -1)
    return [visit for visit in boundaries if place_of(visit, sequences) <= last]
