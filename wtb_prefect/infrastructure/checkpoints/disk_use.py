"""What threads take in the SQLite file of LangGraph's saver, and getting it back.

The saver's own cursor commits even what failed half way, so these are transactions of our own.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wtb_prefect.domain.checkpoint import StoreSpace
from wtb_prefect.domain.identifiers import CheckpointId

_CHUNK = 500
"""Threads in one statement, and in one transaction: others write in between."""

_SIZES = """
SELECT thread_id, SUM(bytes) FROM (
    SELECT thread_id, LENGTH(checkpoint) + LENGTH(metadata) AS bytes FROM checkpoints
    WHERE thread_id IN ({marks})
    UNION ALL
    SELECT thread_id, LENGTH(value) FROM writes WHERE thread_id IN ({marks})
) GROUP BY thread_id
"""

_DELTA = "counters_since_delta_snapshot"
"""In the metadata of a checkpoint whose values are rebuilt from the writes before it."""


def sizes(connection: sqlite3.Connection, threads: Sequence[str]) -> dict[str, int]:
    """See `CheckpointStore.sizes`. SQLite reads the lengths without reading the values."""
    found: dict[str, int] = {}
    for chunk in chunks(threads):
        query = _SIZES.format(marks=",".join("?" * len(chunk)))
        found.update(connection.execute(query, [*chunk, *chunk]).fetchall())
    return found


_ORPHANS = """
FROM writes WHERE NOT EXISTS (
    SELECT 1 FROM checkpoints c WHERE c.thread_id = writes.thread_id
    AND c.checkpoint_ns = writes.checkpoint_ns AND c.checkpoint_id = writes.checkpoint_id
)
"""


def threads(connection: sqlite3.Connection) -> list[str]:
    """See `CheckpointStore.threads`."""
    rows = connection.execute(
        "SELECT thread_id FROM checkpoints UNION SELECT thread_id FROM writes"
    )
    return sorted(row[0] for row in rows)


def orphan_writes(connection: sqlite3.Connection) -> dict[str, int]:
    """See `CheckpointStore.orphan_writes`."""
    query = f"SELECT thread_id, count(*) {_ORPHANS} GROUP BY thread_id"
    return dict(connection.execute(query).fetchall())


def delete_orphan_writes(connection: sqlite3.Connection, thread: str) -> None:
    """See `CheckpointStore.delete_orphan_writes`."""
    with connection:
        connection.execute(f"DELETE {_ORPHANS} AND thread_id = ?", (thread,))


def parents(
    connection: sqlite3.Connection, threads: Sequence[str]
) -> dict[tuple[str, CheckpointId], CheckpointId | None]:
    """See `CheckpointStore.parents`; one with an empty value is none."""
    found: dict[tuple[str, CheckpointId], CheckpointId | None] = {}
    for chunk in chunks(threads):
        rows = connection.execute(
            "SELECT thread_id, checkpoint_id, parent_checkpoint_id FROM checkpoints "  # noqa: S608 - only marks
            f"WHERE checkpoint_ns = '' AND LENGTH(checkpoint) > 0 "
            f"AND thread_id IN ({','.join('?' * len(chunk))})",
            chunk,
        )
        found.update(((thread, known), parent) for thread, known, parent in rows)
    return found


def delete_threads(connection: sqlite3.Connection, threads: Sequence[str]) -> None:
    """See `CheckpointStore.delete_many`."""
    for chunk in chunks(threads):
        with connection:
            rows = [(thread,) for thread in chunk]
            connection.executemany("DELETE FROM checkpoints WHERE thread_id = ?", rows)
            connection.executemany("DELETE FROM writes WHERE thread_id = ?", rows)


def prune(connection: sqlite3.Connection, keep: Mapping[str, Collection[str]]) -> int:
    """See `CheckpointStore.prune`."""
    count = 0
    for chunk in chunks(list(keep)):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            count += sum(_prune(connection, thread, keep[thread]) for thread in chunk)
    return count


def _prune(connection: sqlite3.Connection, thread: str, keep: Collection[str]) -> int:
    metadata: dict[str, dict[str, Any]] = defaultdict(dict)
    for namespace, checkpoint, text in connection.execute(
        "SELECT checkpoint_ns, checkpoint_id, metadata FROM checkpoints WHERE thread_id = ?",
        (thread,),
    ).fetchall():
        metadata[namespace][checkpoint] = json.loads(text) if text else {}
    gone = [
        (thread, namespace, checkpoint)
        for namespace, known in metadata.items()
        for checkpoint in prunable(namespace, known, keep)
    ]
    where = "WHERE thread_id = ? AND checkpoint_ns = ? AND"
    for statement in (
        f"DELETE FROM checkpoints {where} checkpoint_id = ?",  # noqa: S608 - fixed text
        f"DELETE FROM writes {where} checkpoint_id = ?",  # noqa: S608 - as above
        # No checkpoint names a parent that its thread does not hold.
        f"UPDATE checkpoints SET parent_checkpoint_id = NULL {where} parent_checkpoint_id = ?",  # noqa: S608 - as above
    ):
        connection.executemany(statement, gone)
    return len(gone)


def prunable(
    namespace: str, metadata: Mapping[str, Mapping[str, Any]], keep: Collection[str]
) -> list[str]:
    """The checkpoints of a namespace (id -> metadata) that can go."""
    kept = set(keep) if namespace == "" else {max(metadata)}
    if any(metadata[checkpoint].get(_DELTA) for checkpoint in kept & metadata.keys()):
        return []
    return [checkpoint for checkpoint in metadata if checkpoint not in kept]


def space(connection: sqlite3.Connection, path: Path) -> StoreSpace:
    """See `CheckpointStore.space`."""
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    on_disk = 0
    for file in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            on_disk += file.stat().st_size
    return StoreSpace(on_disk=on_disk, free=page * free)


def compact(connection: sqlite3.Connection, busy_ms: int = 2000) -> str | None:
    """See `CheckpointStore.compact`. `VACUUM` needs the file for itself and room for a copy."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout={busy_ms}")
    try:
        connection.execute("VACUUM")
        # What VACUUM wrote is in the journal until somebody moves it into the file.
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as exc:
        return str(exc)
    finally:
        connection.execute(f"PRAGMA busy_timeout={patience}")
    return "the file is being read by another process" if busy else None


def chunks(threads: Sequence[str]) -> list[list[str]]:
    """Distinct threads in groups of one transaction each."""
    distinct = list(dict.fromkeys(threads))
    return [distinct[start : start + _CHUNK] for start in range(0, len(distinct), _CHUNK)]
