"""Whether a fork from the checkpoints would see what the live run sees, and if not why.

Finds in-place mutation (values change without a new version), lossy types and untracked values, in
every graph from the top one to the gate's own, in what is being sent to nodes, and in the pending
writes of siblings that have finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import TASKS
from langgraph.pregel._checkpoint import channels_from_checkpoint
from langgraph.pregel._io import read_channels

from wtb_prefect.errors import InfrastructureError
from wtb_prefect.infrastructure.checkpoints.recording_saver import (
    SPECIAL_CHANNELS,
    RecordingSaver,
    Watch,
)
from wtb_prefect.infrastructure.workflow.body_context import GateHit
from wtb_prefect.infrastructure.workflow.compile_graph import Level, is_delta, path_of
from wtb_prefect.infrastructure.workflow.same_value import difference, without_ids

HeadOf = Callable[[str], CheckpointTuple | None]


def values_of(
    found: CheckpointTuple, channels: Mapping[str, Any], saver: RecordingSaver
) -> dict[str, Any]:
    """The values a checkpoint gives back for these channels."""
    specs, _ = channels_from_checkpoint(
        channels, found.checkpoint, saver=saver.saver, config=found.config
    )
    values = read_channels(specs, list(channels))
    assert isinstance(values, dict)
    return values


def unlike_live(
    hit: GateHit,
    levels: Mapping[str, Level],
    watch: Watch,
    head_of: HeadOf,
    saver: RecordingSaver,
) -> str | None:
    """What a fork at this gate would see differently, in words; None if nothing.

    Raises `InfrastructureError` if a graph that was running has no checkpoint.
    """
    for namespace in hit.around:
        head = head_of(namespace)
        if head is None:
            raise InfrastructureError(f"a gate was reached in {namespace!r} without a checkpoint")
        level = levels[path_of(namespace)]
        if namespace == hit.namespace:
            live: Mapping[str, Any] = hit.live
            reloaded = values_of(head, level.channels, saver)
        else:
            live = _comparable(watch.live.get(namespace, {}), level)
            reloaded = head.checkpoint["channel_values"]
        found = _unlike(live, reloaded, path_of(namespace))
        found = found or _unlike_writes(watch.live_writes.get(namespace, {}), head)
        if found is not None:
            return found
    return None


def _comparable(saved: Mapping[str, Any], level: Level) -> dict[str, Any]:
    # A DeltaChannel is not in the checkpoint's values but in its writes.
    channels = level.channels
    return {k: v for k, v in saved.items() if k in channels and not is_delta(channels[k])}


def _unlike(live: Mapping[str, Any], reloaded: Mapping[str, Any], path: str) -> str | None:
    inside = f" of subgraph {path!r}" if path else ""
    for key, value in live.items():
        where = f"what is sent to nodes{inside}" if key == TASKS else f"state key {key!r}{inside}"
        if key not in reloaded:
            return f"{where} is not in the checkpoint"
        if (found := difference(value, reloaded[key], where)) is not None:
            return found
    return None


def _unlike_writes(live: Mapping[str, list[tuple[str, Any]]], head: CheckpointTuple) -> str | None:
    saved: dict[str, list[tuple[str, Any]]] = {}
    for task, channel, value in head.pending_writes or ():
        if channel not in SPECIAL_CHANNELS:
            saved.setdefault(task, []).append((channel, value))
    for task, writes in live.items():
        # Messages without an id get one in place once somebody reads the state, here sooner or
        # later than they are saved; each fork draws its own, as each run does.
        kept, back = ([(c, without_ids(v)) for c, v in w] for w in (writes, saved.get(task, [])))
        if (found := difference(kept, back, "a pending write")) is not None:
            return found
    return None
