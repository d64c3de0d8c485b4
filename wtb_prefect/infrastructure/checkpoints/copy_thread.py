"""Copying the end of a thread into another one, row by row: ids, parents and writes stay."""

from __future__ import annotations

import sqlite3

from langgraph.checkpoint.memory import InMemorySaver

_CHECKPOINTS = """
INSERT OR REPLACE INTO checkpoints
    (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT :target, checkpoint_ns, checkpoint_id,
    CASE WHEN checkpoint_ns = '' AND checkpoint_id = :first THEN NULL ELSE parent_checkpoint_id END,
    type, checkpoint, metadata
FROM checkpoints
WHERE thread_id = :source AND (checkpoint_ns != '' OR checkpoint_id >= :first)
"""
# The copy's first checkpoint has no parent: one that its thread does not hold makes LangGraph
# list a checkpoint that cannot be loaded.

_WRITES = """
INSERT OR REPLACE INTO writes
    (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value, task_path)
SELECT :target, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value, task_path
FROM writes
WHERE thread_id = :source AND (checkpoint_ns != '' OR checkpoint_id >= :first)
"""


def copy_rows(connection: sqlite3.Connection, source: str, first: str, target: str) -> None:
    """From the checkpoint `first` of the top graph on ("": everything), in one transaction."""
    values = {"source": source, "first": first, "target": target}
    with connection:
        connection.execute(_CHECKPOINTS, values)
        connection.execute(_WRITES, values)


def copy_memory(saver: InMemorySaver, source: str, first: str, target: str) -> None:
    """The same for LangGraph's saver in memory."""
    for namespace, found in saver.storage.get(source, {}).items():
        for checkpoint_id, (checkpoint, metadata, parent) in found.items():
            if namespace or checkpoint_id >= first:
                kept = None if not namespace and checkpoint_id == first else parent
                saver.storage[target][namespace][checkpoint_id] = checkpoint, metadata, kept
    for (thread, namespace, checkpoint_id), writes in list(saver.writes.items()):
        if thread == source and (namespace or checkpoint_id >= first):
            saver.writes[target, namespace, checkpoint_id] = dict(writes)
    for (thread, namespace, channel, version), blob in list(saver.blobs.items()):
        if thread == source:
            saver.blobs[target, namespace, channel, version] = blob
