"""The checkpoint port over LangGraph's saver for PostgreSQL."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, LiteralString

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg import Connection
from psycopg.rows import dict_row

from wtb_prefect.domain.checkpoint import StoreSpace
from wtb_prefect.domain.identifiers import CheckpointId
from wtb_prefect.errors import CheckpointError
from wtb_prefect.infrastructure.checkpoints import postgres_rows
from wtb_prefect.infrastructure.checkpoints.disk_use import chunks
from wtb_prefect.infrastructure.checkpoints.langgraph_store import (
    LangGraphCheckpointStore,
    address_of,
    store_faults,
)
from wtb_prefect.infrastructure.checkpoints.postgres_rows import Row
from wtb_prefect.infrastructure.database.postgres_engine import connect_arguments

_SETUP = 0x577463  # any number: who makes or changes LangGraph's tables
_SETUP_SECONDS = 60.0


class PostgresCheckpointStore(LangGraphCheckpointStore):
    """Checkpoints in a PostgreSQL database; several processes may write it at once.

    The saver's synchronous form, as for SQLite: it is called in place
    (`RecordingSaver`), by whichever thread, and its asynchronous form belongs to one event loop.
    """

    saver: ReconnectingSaver

    def __init__(self, url: str, serde: SerializerProtocol | None = None) -> None:
        with store_faults("open"):
            super().__init__(ReconnectingSaver(connect_arguments(url), serde))
            try:
                _set_up(self.saver)
            except BaseException:  # also Ctrl-C: closed here, then raised on
                self.close()
                raise

    def task_paths(self, source: CheckpointTuple) -> dict[str, str]:
        """From the writes table."""
        with self._connection("fork") as connection:
            return postgres_rows.task_paths(connection, address_of(source))

    def rewind(
        self,
        thread_id: str,
        checkpoint_id: CheckpointId,
        keep_tasks: Collection[str],
        subgraphs: Mapping[str, CheckpointId] = MappingProxyType({}),
    ) -> None:
        """See `CheckpointStore.rewind`."""
        heads = {**subgraphs, "": checkpoint_id}
        with self._connection("rewind") as connection:
            postgres_rows.rewind(connection, thread_id, heads, keep_tasks)

    def copy(self, source_thread: str, checkpoint_id: CheckpointId, target_thread: str) -> None:
        """See `CheckpointStore.copy`."""
        first = "" if self.deltas_of("") else checkpoint_id
        with self._connection("copy") as connection:
            postgres_rows.copy(connection, source_thread, first, target_thread)

    def delete_many(self, thread_ids: Sequence[str]) -> None:
        """See `CheckpointStore.delete_many`."""
        with store_faults("delete"):
            for chunk in chunks(thread_ids):
                self.saver.prune(chunk, strategy="delete")

    def prune(self, keep: Mapping[str, Collection[CheckpointId]]) -> int:
        """See `CheckpointStore.prune`."""
        with self._connection("prune") as connection:
            return sum(postgres_rows.prune(connection, thread, keep[thread]) for thread in keep)

    def threads(self) -> list[str]:
        """See `CheckpointStore.threads`."""
        with self._connection("list") as connection:
            return postgres_rows.threads(connection)

    def orphan_writes(self) -> dict[str, int]:
        """See `CheckpointStore.orphan_writes`."""
        with self._connection("list") as connection:
            return postgres_rows.orphan_writes(connection)

    def delete_orphan_writes(self, thread_id: str) -> None:
        """See `CheckpointStore.delete_orphan_writes`."""
        with self._connection("delete") as connection:
            postgres_rows.delete_orphan_writes(connection, thread_id)

    def parents(
        self, thread_ids: Sequence[str]
    ) -> dict[tuple[str, CheckpointId], CheckpointId | None]:
        """See `CheckpointStore.parents`."""
        with self._connection("list") as connection:
            return postgres_rows.parents(connection, thread_ids)

    def sizes(self, thread_ids: Sequence[str]) -> dict[str, int]:
        """See `CheckpointStore.sizes`."""
        with self._connection("sizes") as connection:
            return postgres_rows.sizes(connection, thread_ids)

    def space(self) -> StoreSpace:
        """See `CheckpointStore.space`."""
        with self._connection("space") as connection:
            return postgres_rows.space(connection)

    def compact(self) -> str | None:
        """See `CheckpointStore.compact`."""
        with self._connection("compact") as connection:
            return postgres_rows.compact(connection)

    def close(self) -> None:
        """Closes the connection; the next call opens another one."""
        self.saver.close()

    @contextmanager
    def _connection(self, what: str) -> Iterator[Connection[Row]]:
        with store_faults(what), self.saver.lock:
            yield self.saver.conn


class ReconnectingSaver(PostgresSaver):
    """LangGraph's saver on one connection, opened anew after the server has dropped it.

    One is enough: the saver holds its lock for the length of each call.
    """

    lock: threading.Lock

    def __init__(
        self, arguments: Mapping[str, Any], serde: SerializerProtocol | None = None
    ) -> None:
        self._arguments = arguments
        self._open: Connection[Row] = self._connect()
        super().__init__(self._open, serde=serde)

    @property
    def conn(self) -> Connection[Row]:
        """The open connection."""
        if self._open.closed:
            self._open = self._connect()
        return self._open

    @conn.setter
    def conn(self, connection: Connection[Row]) -> None:
        self._open = connection

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Simple values that JSON does not give back are kept with the others, in bytes."""
        values = {
            key: _InBytes(value) if _changes_in_json(value) else value
            for key, value in checkpoint["channel_values"].items()
        }
        return super().put(config, {**checkpoint, "channel_values": values}, metadata, new_versions)

    def close(self) -> None:
        """Closes the connection."""
        self._open.close()

    def _connect(self) -> Connection[Row]:
        return Connection.connect(**self._arguments, row_factory=dict_row)

    def _dump_blobs(
        self, thread_id: str, checkpoint_ns: str, values: dict[str, Any], versions: ChannelVersions
    ) -> list[tuple[str, str, str, str, str, bytes | None]]:
        plain = {
            key: value.value if isinstance(value, _InBytes) else value
            for key, value in values.items()
        }
        return super()._dump_blobs(thread_id, checkpoint_ns, plain, versions)


@dataclass(frozen=True, slots=True)
class _InBytes:
    """A simple value that the saver is to keep as it keeps all others."""

    value: Any


def _changes_in_json(value: Any) -> bool:
    """Whether a value that LangGraph's saver keeps as JSON would be refused, or come back as
    another one: a text with NUL, a number that is none, 1e16 as an integer, an enum as a text."""
    if not isinstance(value, (str, int, float)):
        return False
    if type(value) is str:
        return "\0" in value or not _encodable(value)
    if type(value) is float:
        return not math.isfinite(value) or "e" in repr(value) or repr(value) == "-0.0"
    return type(value) not in (int, bool)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _set_up(saver: ReconnectingSaver) -> None:
    """Makes LangGraph's tables, one process at a time.

    It asks for the lock again and again: one that waits in the server holds up the indexes that
    are made `CONCURRENTLY`, which wait for all that was begun before.
    """
    deadline = time.monotonic() + _SETUP_SECONDS
    while not _is_current(saver):
        if _ask(saver, "SELECT pg_try_advisory_lock(%s) AS found", _SETUP):
            try:
                saver.setup()
            finally:
                _ask(saver, "SELECT pg_advisory_unlock(%s) AS found", _SETUP)
        elif time.monotonic() > deadline:
            raise CheckpointError(
                f"checkpoint store: another process has been making its tables for "
                f"{_SETUP_SECONDS:.0f} s"
            )
        else:
            time.sleep(0.05)


def _is_current(saver: ReconnectingSaver) -> bool:
    if _ask(saver, "SELECT to_regclass(%s)::text AS found", "checkpoint_migrations") is None:
        return False
    newest = len(saver.MIGRATIONS) - 1
    found = _ask(saver, "SELECT COALESCE(MAX(v), %s) AS found FROM checkpoint_migrations", -1)
    if found > newest:
        raise CheckpointError(
            f"checkpoint store: its tables have version {found}, this langgraph-checkpoint-postgres"
            f" knows up to {newest}: use the newer one that made them"
        )
    return bool(found == newest)


def _ask(saver: ReconnectingSaver, query: LiteralString, value: str | int) -> Any:
    with saver.lock:
        row = saver.conn.execute(query, (value,)).fetchone()
    assert row is not None
    return row["found"]
