"""The checkpoint port over LangGraph's savers (memory and SQLite; `postgres_store` is another)."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import ERROR_SOURCE_NODE
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, _DeltaSnapshot
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.pregel._checkpoint import channels_from_checkpoint

from wtb_prefect.domain.checkpoint import StoredCheckpoint, StoreSpace
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.errors import CheckpointError
from wtb_prefect.infrastructure.checkpoints import disk_use, memory_use
from wtb_prefect.infrastructure.checkpoints.copy_thread import copy_memory, copy_rows
from wtb_prefect.infrastructure.driver_faults import driver_faults, one_line

_NULL_TASK = "00000000-0000-0000-0000-000000000000"
_SPECIAL = (ERROR, ERROR_SOURCE_NODE, INTERRUPT, RESUME)


DeltasOf = Callable[[str], Mapping[str, Any]]


def config_for(
    thread: str, checkpoint_id: str | None = None, namespace: str = ""
) -> RunnableConfig:
    """The config that addresses a thread of a graph, or one checkpoint of it."""
    configurable = {"thread_id": thread, "checkpoint_ns": namespace}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


@contextmanager
def store_faults(what: str) -> Iterator[None]:
    """A fault of the database is the store's, never the workflow's: raises `CheckpointError`."""
    try:
        yield
    except driver_faults() as exc:
        raise CheckpointError(f"checkpoint store: {what}: {one_line(exc)}") from exc


class LangGraphCheckpointStore(ABC):
    """What both savers share; `saver` is what graphs are compiled with.

    `deltas_of` gives the channels of a namespace's graph that are kept as a history of writes: a
    store knows nothing of graphs by itself.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self.saver = saver
        self.deltas_of: DeltasOf = lambda _: {}

    def save(self, checkpoint: StoredCheckpoint) -> None:
        """Stores channel values as a checkpoint of format 4."""
        versions = dict.fromkeys(checkpoint.channel_values, self.saver.get_next_version(None, None))
        stored: Any = {
            "v": 4,
            "id": checkpoint.checkpoint_id,
            "ts": datetime.now(UTC).isoformat(),
            "channel_values": dict(checkpoint.channel_values),
            "channel_versions": versions,
            "versions_seen": {},
        }
        metadata: Any = {"source": "update", **checkpoint.metadata, "step": checkpoint.step}
        with store_faults("save"):
            self.saver.put(
                config_for(checkpoint.thread_id, checkpoint.parent_id), stored, metadata, versions
            )

    def load(self, thread_id: str, checkpoint_id: CheckpointId) -> StoredCheckpoint:
        """See `CheckpointStore.load`."""
        return _stored(self.tuple_of(thread_id, checkpoint_id))

    def tuple_of(
        self, thread_id: str, checkpoint_id: CheckpointId, namespace: str = ""
    ) -> CheckpointTuple:
        """LangGraph's own record of a checkpoint.

        Raises `CheckpointError` if there is none, or if it cannot be read.
        """
        where = f"checkpoint {checkpoint_id} in thread {thread_id}"
        try:
            with store_faults("load"):
                found = self.saver.get_tuple(config_for(thread_id, checkpoint_id, namespace))
            is_whole = found is None or found.checkpoint["id"] == checkpoint_id
        except CheckpointError:
            raise
        except Exception as exc:  # damaged bytes raise whatever they are taken for
            raise CheckpointError(f"{where} is damaged: {type(exc).__name__}: {exc}") from exc
        if found is None:
            raise CheckpointError(f"no {where}")
        if not is_whole:
            raise CheckpointError(f"{where} is damaged: it holds another one")
        return found

    def latest(self, thread_id: str) -> StoredCheckpoint | None:
        """See `CheckpointStore.latest`."""
        with store_faults("latest"):
            found = self.saver.get_tuple(config_for(thread_id))
        return None if found is None else _stored(found)

    def history(self, thread_id: str) -> list[StoredCheckpoint]:
        """See `CheckpointStore.history`."""
        with store_faults("history"):
            return [_stored(found) for found in self.saver.list(config_for(thread_id))][::-1]

    def exists(self, thread_id: str, checkpoint_id: CheckpointId) -> bool:
        """See `CheckpointStore.exists`."""
        with store_faults("exists"):
            return self.saver.get_tuple(config_for(thread_id, checkpoint_id)) is not None

    def delete(self, thread_id: str) -> None:
        """See `CheckpointStore.delete`."""
        with store_faults("delete"):
            self.saver.delete_thread(thread_id)

    def fork(
        self,
        source_thread: str,
        checkpoint_id: CheckpointId,
        target_thread: str,
        subgraphs: Mapping[str, CheckpointId] = MappingProxyType({}),
        *,
        with_writes: bool = True,
    ) -> None:
        """See `CheckpointStore.fork`.

        Subgraphs first: a copy that a crash left without them has no head of its own yet, and is
        made again.
        """
        for namespace, inner in [*subgraphs.items(), ("", checkpoint_id)]:
            source = self.tuple_of(source_thread, inner, namespace)
            self._copy(source, target_thread, with_writes=with_writes)

    def _copy(self, source: CheckpointTuple, target_thread: str, *, with_writes: bool) -> None:
        """`put` without a checkpoint id in the config, or the copy would have a parent that its
        thread does not hold; all channel versions as new, or savers that keep values apart lose
        every non-primitive channel."""
        source_thread, namespace, _ = address_of(source)
        metadata: Any = {**source.metadata, "wtb_forked_from": source_thread}
        checkpoint = self._complete(source, namespace, metadata)
        with store_faults("fork"):
            config = self.saver.put(
                config_for(target_thread, namespace=namespace),
                checkpoint,
                metadata,
                checkpoint["channel_versions"],
            )
            for task, path, writes in self._writes_by_task(source) if with_writes else ():
                self.saver.put_writes(config, writes, task, path)

    def _complete(
        self, source: CheckpointTuple, namespace: str, metadata: dict[str, Any]
    ) -> Checkpoint:
        """The checkpoint with the whole value of every channel that is kept as a history: the copy
        has no ancestors to rebuild it from."""
        deltas = self.deltas_of(namespace)
        if not deltas:
            return source.checkpoint
        with store_faults("fork"):
            channels, _ = channels_from_checkpoint(
                deltas, source.checkpoint, saver=self.saver, config=source.config
            )
        whole = {key: _DeltaSnapshot(c.get()) for key, c in channels.items() if c.is_available()}
        metadata.pop("counters_since_delta_snapshot", None)
        values = {**source.checkpoint["channel_values"], **whole}
        return {**source.checkpoint, "channel_values": values}

    def _writes_by_task(
        self, source: CheckpointTuple
    ) -> Iterator[tuple[str, str, Sequence[tuple[str, Any]]]]:
        """Pending writes to copy. Plain and special ones apart, because savers number writes by
        their place in the call; without the resume value that belongs to the source's own run."""
        plain: dict[str, list[tuple[str, Any]]] = {}
        special: dict[str, list[tuple[str, Any]]] = {}
        for task, channel, value in source.pending_writes or ():
            if task == _NULL_TASK and channel == RESUME:
                continue
            group = special if channel in _SPECIAL else plain
            group.setdefault(task, []).append((channel, value))
        paths = self.task_paths(source)
        for group in (plain, special):
            for task, writes in group.items():
                yield task, paths.get(task, ""), writes

    @abstractmethod
    def task_paths(self, source: CheckpointTuple) -> dict[str, str]:
        """The recorded task path of each pending write's task: writes are applied in that order.
        Each saver keeps the paths in its own place."""

    def close(self) -> None:  # noqa: B027 - a store without a connection has nothing to do
        """Nothing to close, unless the saver holds a connection."""


class MemoryCheckpointStore(LangGraphCheckpointStore):
    """Checkpoints in this process; gone with it."""

    saver: InMemorySaver

    def __init__(self, serde: SerializerProtocol | None = None) -> None:
        super().__init__(InMemorySaver(serde=serde))

    def task_paths(self, source: CheckpointTuple) -> dict[str, str]:
        """From the saver's own dictionary."""
        key = address_of(source)
        return {task: path for task, _, _, path in self.saver.writes.get(key, {}).values()}

    def threads(self) -> list[str]:
        """See `CheckpointStore.threads`."""
        written = {thread for (thread, *_), writes in self.saver.writes.items() if writes}
        return sorted({*(t for t, found in self.saver.storage.items() if found), *written})

    def orphan_writes(self) -> dict[str, int]:
        """See `CheckpointStore.orphan_writes`."""
        return dict(Counter(thread for thread, _, _ in self._orphans()))

    def delete_orphan_writes(self, thread_id: str) -> None:
        """See `CheckpointStore.delete_orphan_writes`."""
        for key in [key for key in self._orphans() if key[0] == thread_id]:
            del self.saver.writes[key]

    def _orphans(self) -> list[tuple[str, str, str]]:
        return [
            (thread, namespace, checkpoint)
            for (thread, namespace, checkpoint), writes in self.saver.writes.items()
            if writes and checkpoint not in self.saver.storage.get(thread, {}).get(namespace, {})
        ]

    def parents(
        self, thread_ids: Sequence[str]
    ) -> dict[tuple[str, CheckpointId], CheckpointId | None]:
        """See `CheckpointStore.parents`."""
        return {
            (thread, CheckpointId(known)): CheckpointId(parent) if parent else None
            for thread in thread_ids
            for known, (*_, parent) in self.saver.storage.get(thread, {}).get("", {}).items()
        }

    def delete_many(self, thread_ids: Sequence[str]) -> None:
        """See `CheckpointStore.delete_many`."""
        for thread in thread_ids:
            self.saver.delete_thread(thread)

    def prune(self, keep: Mapping[str, Collection[CheckpointId]]) -> int:
        """See `CheckpointStore.prune`."""
        return sum(memory_use.prune(self.saver, thread, kept) for thread, kept in keep.items())

    def sizes(self, thread_ids: Sequence[str]) -> dict[str, int]:
        """See `CheckpointStore.sizes`."""
        return memory_use.sizes(self.saver, thread_ids)

    def copy(self, source_thread: str, checkpoint_id: CheckpointId, target_thread: str) -> None:
        """See `CheckpointStore.copy`."""
        first = "" if self.deltas_of("") else checkpoint_id
        copy_memory(self.saver, source_thread, first, target_thread)

    def space(self) -> StoreSpace:
        """Nothing on any disk."""
        return StoreSpace(on_disk=0, free=0)

    def compact(self) -> str | None:
        """Nothing to give back."""
        return None

    def rewind(
        self,
        thread_id: str,
        checkpoint_id: CheckpointId,
        keep_tasks: Collection[str],
        subgraphs: Mapping[str, CheckpointId] = MappingProxyType({}),
    ) -> None:
        """See `CheckpointStore.rewind`."""
        heads = {**subgraphs, "": checkpoint_id}
        for namespace, found in self.saver.storage.get(thread_id, {}).items():
            head = heads.get(namespace, checkpoint_id)
            for newer in [known for known in found if known > head]:
                del found[newer]
                self.saver.writes.pop((thread_id, namespace, newer), None)
        for namespace, head in heads.items():
            writes = self.saver.writes.get((thread_id, namespace, head), {})
            for key, (task, *_) in list(writes.items()):
                if task not in keep_tasks:
                    del writes[key]


class SqliteCheckpointStore(LangGraphCheckpointStore):
    """Checkpoints in one SQLite file; several processes may write it at once."""

    saver: SqliteSaver

    def __init__(self, path: Path, serde: SerializerProtocol | None = None) -> None:
        self._path = path
        with store_faults(f"open {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # 30 s: under load SQLite's writers queue for longer than its default of 5 s.
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
            try:
                self._connection.execute("PRAGMA synchronous=FULL")
                super().__init__(SqliteSaver(self._connection, serde=serde))
                self.saver.setup()
            except BaseException:  # also Ctrl-C: closed here, then raised on
                self._connection.close()
                raise

    def task_paths(self, source: CheckpointTuple) -> dict[str, str]:
        """From the writes table."""
        with self.saver.lock:
            rows = self._connection.execute(
                "SELECT DISTINCT task_id, task_path FROM writes "
                "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                address_of(source),
            ).fetchall()
        return dict(rows)

    def rewind(
        self,
        thread_id: str,
        checkpoint_id: CheckpointId,
        keep_tasks: Collection[str],
        subgraphs: Mapping[str, CheckpointId] = MappingProxyType({}),
    ) -> None:
        """See `CheckpointStore.rewind`; one transaction of our own (the saver's cursor commits
        even what failed half way)."""
        keep = sorted(keep_tasks)
        known = sorted(subgraphs)
        with store_faults("rewind"), self.saver.lock, self._connection:
            for table in ("checkpoints", "writes"):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_id > ? "  # noqa: S608 - fixed names and marks
                    f"AND checkpoint_ns NOT IN ({_marks(known)})",
                    (thread_id, checkpoint_id, *known),
                )
                self._connection.executemany(
                    f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? "  # noqa: S608 - fixed names
                    "AND checkpoint_id > ?",
                    [(thread_id, namespace, head) for namespace, head in subgraphs.items()],
                )
            for namespace, head in {**subgraphs, "": checkpoint_id}.items():
                self._connection.execute(
                    "DELETE FROM writes WHERE thread_id = ? AND checkpoint_ns = ? "  # noqa: S608 - only marks
                    f"AND checkpoint_id = ? AND task_id NOT IN ({_marks(keep)})",
                    (thread_id, namespace, head, *keep),
                )

    def copy(self, source_thread: str, checkpoint_id: CheckpointId, target_thread: str) -> None:
        """See `CheckpointStore.copy`."""
        first = "" if self.deltas_of("") else checkpoint_id
        with store_faults("copy"), self.saver.lock:
            copy_rows(self._connection, source_thread, first, target_thread)

    def delete_many(self, thread_ids: Sequence[str]) -> None:
        """See `CheckpointStore.delete_many`."""
        with store_faults("delete"), self.saver.lock:
            disk_use.delete_threads(self._connection, thread_ids)

    def prune(self, keep: Mapping[str, Collection[CheckpointId]]) -> int:
        """See `CheckpointStore.prune`."""
        with store_faults("prune"), self.saver.lock:
            return disk_use.prune(self._connection, keep)

    def threads(self) -> list[str]:
        """See `CheckpointStore.threads`."""
        with store_faults("list"), self.saver.lock:
            return disk_use.threads(self._connection)

    def orphan_writes(self) -> dict[str, int]:
        """See `CheckpointStore.orphan_writes`."""
        with store_faults("list"), self.saver.lock:
            return disk_use.orphan_writes(self._connection)

    def delete_orphan_writes(self, thread_id: str) -> None:
        """See `CheckpointStore.delete_orphan_writes`."""
        with store_faults("delete"), self.saver.lock:
            disk_use.delete_orphan_writes(self._connection, thread_id)

    def parents(
        self, thread_ids: Sequence[str]
    ) -> dict[tuple[str, CheckpointId], CheckpointId | None]:
        """See `CheckpointStore.parents`."""
        with store_faults("list"), self.saver.lock:
            return disk_use.parents(self._connection, thread_ids)

    def sizes(self, thread_ids: Sequence[str]) -> dict[str, int]:
        """See `CheckpointStore.sizes`."""
        with store_faults("sizes"), self.saver.lock:
            return disk_use.sizes(self._connection, thread_ids)

    def space(self) -> StoreSpace:
        """See `CheckpointStore.space`."""
        with store_faults("space"), self.saver.lock:
            return disk_use.space(self._connection, self._path)

    def compact(self) -> str | None:
        """See `CheckpointStore.compact`."""
        with store_faults("compact"), self.saver.lock:
            return disk_use.compact(self._connection)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))


def address_of(source: CheckpointTuple) -> tuple[str, str, str]:
    """Thread, namespace and id of a checkpoint."""
    configurable = source.config["configurable"]
    return configurable["thread_id"], configurable["checkpoint_ns"], source.checkpoint["id"]


def _stored(found: CheckpointTuple) -> StoredCheckpoint:
    parent = (found.parent_config or {}).get("configurable", {}).get("checkpoint_id")
    pending = {task for task, channel, _ in found.pending_writes or () if channel not in _SPECIAL}
    return StoredCheckpoint(
        checkpoint_id=CheckpointId(found.checkpoint["id"]),
        thread_id=found.config["configurable"]["thread_id"],
        parent_id=parent,
        step=found.metadata.get("step", -2),
        channel_values=found.checkpoint["channel_values"],
        metadata=cast("dict[str, Any]", found.metadata),
        pending_tasks=tuple(sorted(pending)),
    )
