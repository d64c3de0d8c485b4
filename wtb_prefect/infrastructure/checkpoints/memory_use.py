"""What threads take in LangGraph's saver in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langgraph.checkpoint.memory import InMemorySaver

from wtb_prefect.infrastructure.checkpoints.disk_use import prunable


def sizes(saver: InMemorySaver, threads: Sequence[str]) -> dict[str, int]:
    """See `CheckpointStore.sizes`: values of the same version are kept once."""
    found: dict[str, int] = {}
    for thread in threads:
        for checkpoints in saver.storage.get(thread, {}).values():
            for (_, checkpoint), (_, metadata), _ in checkpoints.values():
                found[thread] = found.get(thread, 0) + len(checkpoint) + len(metadata)
        for (owner, *_), (_, value) in saver.blobs.items():
            if owner == thread:
                found[thread] = found.get(thread, 0) + len(value)
        for (owner, *_), writes in saver.writes.items():
            if owner == thread:
                total = sum(len(value) for _, _, (_, value), _ in writes.values())
                found[thread] = found.get(thread, 0) + total
    return found


def prune(saver: InMemorySaver, thread: str, keep: Collection[str]) -> int:
    """See `CheckpointStore.prune`."""
    count = 0
    for namespace, known in saver.storage.get(thread, {}).items():
        metadata = {key: saver.serde.loads_typed(entry[1]) for key, entry in known.items()}
        gone = prunable(namespace, metadata, keep)
        for checkpoint in gone:
            del known[checkpoint]
            saver.writes.pop((thread, namespace, checkpoint), None)
        for checkpoint, (stored, about, parent) in list(known.items()):
            known[checkpoint] = (stored, about, None if parent in gone else parent)
        if gone:
            _forget_values(saver, thread, namespace)
        count += len(gone)
    return count


def _forget_values(saver: InMemorySaver, thread: str, namespace: str) -> None:
    used = {
        (thread, namespace, channel, version)
        for stored, _, _ in saver.storage[thread][namespace].values()
        for channel, version in saver.serde.loads_typed(stored)["channel_versions"].items()
    }
    for key in [k for k in saver.blobs if k[:2] == (thread, namespace) and k not in used]:
        del saver.blobs[key]
