"""Whole threads in the tables of LangGraph's PostgreSQL saver.

It keeps values apart from checkpoints, in `checkpoint_blobs` by channel and version: what no
checkpoint of the thread names any more is removed with the checkpoints that did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from psycopg import Connection
from psycopg.errors import DiskFull, InsufficientPrivilege, LockNotAvailable

from wtb_prefect.domain.checkpoint import StoreSpace
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.infrastructure.checkpoints.disk_use import prunable
from wtb_prefect.infrastructure.driver_faults import one_line

_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")

_SIZES = """
SELECT thread_id, SUM(bytes)::bigint AS bytes FROM (
    SELECT thread_id, octet_length(checkpoint::text) + octet_length(metadata::text) AS bytes
    FROM checkpoints WHERE thread_id = ANY(%(threads)s)
    UNION ALL
    SELECT thread_id, octet_length(blob) FROM checkpoint_blobs WHERE thread_id = ANY(%(threads)s)
    UNION ALL
    SELECT thread_id, octet_length(blob) FROM checkpoint_writes WHERE thread_id = ANY(%(threads)s)
) AS parts GROUP BY thread_id
"""

_THREADS = """
SELECT thread_id FROM checkpoints
UNION SELECT thread_id FROM checkpoint_writes UNION SELECT thread_id FROM checkpoint_blobs
"""

_ORPHANS = """
FROM checkpoint_writes w WHERE NOT EXISTS (
    SELECT 1 FROM checkpoints c WHERE c.thread_id = w.thread_id
    AND c.checkpoint_ns = w.checkpoint_ns AND c.checkpoint_id = w.checkpoint_id
)
"""

_PARENTS = """
SELECT thread_id, checkpoint_id, parent_checkpoint_id FROM checkpoints
WHERE checkpoint_ns = '' AND thread_id = ANY(%(threads)s)
"""

_COPY_CHECKPOINTS = """
INSERT INTO checkpoints (
    thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT %(target)s, checkpoint_ns, checkpoint_id,
    CASE WHEN checkpoint_ns = '' AND checkpoint_id = %(first)s THEN NULL
        ELSE parent_checkpoint_id END,
    type, checkpoint, metadata
FROM checkpoints
WHERE thread_id = %(source)s AND (checkpoint_ns != '' OR checkpoint_id >= %(first)s)
ON CONFLICT DO NOTHING
"""
# The copy's first checkpoint has no parent: one that its thread does not hold makes LangGraph
# list a checkpoint that cannot be loaded.

_COPY_WRITES = """
INSERT INTO checkpoint_writes (
    thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path
FROM checkpoint_writes
WHERE thread_id = %(source)s AND (checkpoint_ns != '' OR checkpoint_id >= %(first)s)
ON CONFLICT DO NOTHING
"""

# All values, and then those that no copied checkpoint names are gone again.
_COPY_BLOBS = """
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT %(target)s, checkpoint_ns, channel, version, type, blob
FROM checkpoint_blobs WHERE thread_id = %(source)s
ON CONFLICT DO NOTHING
"""

# NOT IN over one set, not a join: a join is planned from estimates, and can go quadratic.
_FORGET_BLOBS = """
DELETE FROM checkpoint_blobs
WHERE thread_id = %(thread)s AND (checkpoint_ns, channel, version) NOT IN (
    SELECT c.checkpoint_ns, v.key, v.value
    FROM checkpoints c CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
    WHERE c.thread_id = %(thread)s)
"""

_METADATA = (
    "SELECT checkpoint_ns, checkpoint_id, metadata FROM checkpoints WHERE thread_id = %(thread)s"
)

_TASK_PATHS = """
SELECT DISTINCT task_id, task_path FROM checkpoint_writes
WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s
"""

_PRUNE = (
    """DELETE FROM checkpoints
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = ANY(%(gone)s)""",
    """DELETE FROM checkpoint_writes
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = ANY(%(gone)s)""",
    # No checkpoint names a parent that its thread does not hold.
    """UPDATE checkpoints SET parent_checkpoint_id = NULL
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s
    AND parent_checkpoint_id = ANY(%(gone)s)""",
)

_REWIND_OTHERS = (
    """DELETE FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_id > %(head)s
    AND checkpoint_ns != ALL(%(known)s)""",
    """DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s AND checkpoint_id > %(head)s
    AND checkpoint_ns != ALL(%(known)s)""",
)

_REWIND_KNOWN = (
    """DELETE FROM checkpoints
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id > %(head)s""",
    """DELETE FROM checkpoint_writes
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id > %(head)s""",
)

_REWIND_WRITES = """
DELETE FROM checkpoint_writes
WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = %(head)s
AND task_id != ALL(%(keep)s)
"""

# What rows take, without reading values that are kept apart. Keys and headers are counted with
# more than they are, so that nothing is called free that is not.
_LIVE = """
SELECT (SUM(bytes) * 1.1 + 65536)::bigint AS bytes FROM (
    SELECT 300 + pg_column_size(checkpoint) + pg_column_size(metadata) AS bytes FROM checkpoints
    UNION ALL SELECT 300 + COALESCE(pg_column_size(blob), 0) FROM checkpoint_blobs
    UNION ALL SELECT 300 + pg_column_size(blob) FROM checkpoint_writes
) AS parts
"""

Row = dict[str, Any]


def sizes(connection: Connection[Row], threads: Sequence[str]) -> dict[str, int]:
    """See `CheckpointStore.sizes`."""
    found = connection.execute(_SIZES, {"threads": list(threads)}).fetchall()
    return {row["thread_id"]: row["bytes"] for row in found}


def threads(connection: Connection[Row]) -> list[str]:
    """See `CheckpointStore.threads`; those of which only values are left, too."""
    return sorted(row["thread_id"] for row in connection.execute(_THREADS).fetchall())


def orphan_writes(connection: Connection[Row]) -> dict[str, int]:
    """See `CheckpointStore.orphan_writes`."""
    query = f"SELECT thread_id, count(*) AS found {_ORPHANS} GROUP BY thread_id"
    return {row["thread_id"]: row["found"] for row in connection.execute(query).fetchall()}


def delete_orphan_writes(connection: Connection[Row], thread: str) -> None:
    """See `CheckpointStore.delete_orphan_writes`."""
    connection.execute(f"DELETE {_ORPHANS} AND thread_id = %s", (thread,))


def parents(
    connection: Connection[Row], threads: Sequence[str]
) -> dict[tuple[str, CheckpointId], CheckpointId | None]:
    """See `CheckpointStore.parents`."""
    found = connection.execute(_PARENTS, {"threads": list(threads)}).fetchall()
    return {(row["thread_id"], row["checkpoint_id"]): row["parent_checkpoint_id"] for row in found}


def copy(connection: Connection[Row], source: str, first: str, target: str) -> None:
    """From the checkpoint `first` of the top graph on ("": everything), in one transaction."""
    values = {"source": source, "first": first, "target": target}
    with connection.transaction():
        for statement in (_COPY_CHECKPOINTS, _COPY_WRITES, _COPY_BLOBS):
            connection.execute(statement, values)
        connection.execute(_FORGET_BLOBS, {"thread": target})


def rewind(
    connection: Connection[Row],
    thread: str,
    heads: Mapping[str, str],
    keep_tasks: Collection[str],
) -> None:
    """See `CheckpointStore.rewind`; `heads` has the top graph's as "", in one transaction."""
    top, keep = {"thread": thread, "head": heads[""]}, sorted(keep_tasks)
    known = [namespace for namespace in heads if namespace]
    with connection.transaction():
        for statement in _REWIND_OTHERS:
            connection.execute(statement, {**top, "known": known})
        for namespace, head in heads.items():
            values = {"thread": thread, "ns": namespace, "head": head, "keep": keep}
            for statement in (*_REWIND_KNOWN, _REWIND_WRITES):
                connection.execute(statement, values)
        connection.execute(_FORGET_BLOBS, {"thread": thread})


def prune(connection: Connection[Row], thread: str, keep: Collection[str]) -> int:
    """See `CheckpointStore.prune`, of one thread in one transaction."""
    count = 0
    with connection.transaction():
        metadata: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in connection.execute(_METADATA, {"thread": thread}).fetchall():
            metadata[row["checkpoint_ns"]][row["checkpoint_id"]] = row["metadata"]
        for namespace, known in metadata.items():
            gone = prunable(namespace, known, keep)
            for statement in _PRUNE if gone else ():
                connection.execute(statement, {"thread": thread, "ns": namespace, "gone": gone})
            count += len(gone)
        if count:
            connection.execute(_FORGET_BLOBS, {"thread": thread})
    return count


def task_paths(connection: Connection[Row], address: tuple[str, str, str]) -> dict[str, str]:
    """The recorded task path of each pending write's task."""
    rows = connection.execute(_TASK_PATHS, address).fetchall()
    return {row["task_id"]: row["task_path"] for row in rows}


def space(connection: Connection[Row]) -> StoreSpace:
    """See `CheckpointStore.space`; what is free is estimated from below."""
    size = "SELECT SUM({}(name::regclass))::bigint AS bytes FROM unnest(%s::text[]) AS name"
    names = [list(_TABLES)]
    total, tables, live = (
        next(iter(connection.execute(query, values).fetchall()[0].values())) or 0
        for query, values in (
            (size.format("pg_total_relation_size"), names),
            (size.format("pg_table_size"), names),
            (_LIVE, None),
        )
    )
    return StoreSpace(on_disk=total, free=max(0, tables - live))


def compact(connection: Connection[Row], busy_ms: int = 2000) -> str | None:
    """See `CheckpointStore.compact`. `VACUUM FULL` needs a table for itself and room for a copy."""
    connection.execute(f"SET lock_timeout = {busy_ms}")
    try:
        for table in _TABLES:
            connection.execute(f"VACUUM (FULL) {table}")
    except (LockNotAvailable, InsufficientPrivilege, DiskFull) as exc:
        return one_line(exc)
    finally:
        connection.execute("RESET lock_timeout")
    return None
