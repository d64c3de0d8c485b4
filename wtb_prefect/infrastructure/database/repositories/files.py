"""File commits, which of them belong to which checkpoint, and kept results of nodes."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, delete, select, union, update

from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit, FileMemento
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.node_result import NodeResult
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.codecs import time_value
from wtb_prefect.infrastructure.database.file_rows import (
    chain,
    changed_blobs,
    commit_of,
    commit_row,
    file_tree,
    link_of,
    link_row,
    memento_rows,
    node_result_of,
    node_result_row,
)
from wtb_prefect.infrastructure.database.rows import Fetched
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import (
    fixed,
    insert_or_ignore,
    insert_row,
    set_columns,
    upsert,
    value,
)

_c = tables.file_commits.c
_m = tables.file_mementos.c
_l = tables.checkpoint_files.c

_COMMIT = select(tables.file_commits).where(_c.commit_id == bindparam("commit_id"))
_MEMENTOS = (
    select(tables.file_mementos)
    .where(_m.commit_id.in_(bindparam("ids", expanding=True)))
    .order_by(_m.position)
)
_line = (
    select(_c.commit_id, _c.parent_id)
    .where(_c.commit_id == bindparam("commit_id"))
    .cte("line", recursive=True)
)
# UNION, not UNION ALL: a chain that bites its tail (a damaged ledger) ends.
_line = _line.union(select(_c.commit_id, _c.parent_id).where(_c.commit_id == _line.c.parent_id))
_CHAIN = select(_line)
_e = tables.executions.c
_ours = _e.batch_id == bindparam("batch_id")
_own = union(
    select(_e.commit_id).where(_ours),
    select(_l.commit_id)
    .join_from(tables.checkpoint_files, tables.executions, _l.execution_id == _e.execution_id)
    .where(_ours),
).subquery()
_used = select(_own.c.commit_id).cte("used", recursive=True)
_used = _used.union(
    select(_c.parent_id).where(_c.commit_id == _used.c.commit_id, _c.parent_id.is_not(None))
)
_BLOBS = (
    select(_m.blob_id, _m.size)
    .where(_m.commit_id.in_(select(_used.c.commit_id)), _m.blob_id.is_not(None))
    .distinct()
)
_PARENTS = select(_c.commit_id, _c.parent_id, _c.created_at)
_named = union(
    select(_e.commit_id).where(_e.commit_id.is_not(None)),
    select(_e.parent_commit_id).where(_e.parent_commit_id.is_not(None)),
    select(_l.commit_id).where(_l.commit_id.is_not(None)),
    select(_c.commit_id).where(_c.execution_id.in_(select(_e.execution_id))),
).subquery()
_IN_USE = select(_named.c.commit_id)
_CONTENTS = (
    select(_m.blob_id)
    .where(_m.commit_id.in_(bindparam("ids", expanding=True)), _m.blob_id.is_not(None))
    .distinct()
)
_DELETE_COMMITS = delete(tables.file_commits).where(
    _c.commit_id.in_(bindparam("ids", expanding=True))
)
_ADD = insert_or_ignore(tables.file_commits)
_ADD_MEMENTO = insert_row(tables.file_mementos)

_LINKS = (
    select(tables.checkpoint_files)
    .where(_l.execution_id == bindparam("execution_id"))
    .order_by(_l.sequence)
)
_LINKS_OF_MANY = (
    select(tables.checkpoint_files)
    .where(_l.execution_id.in_(bindparam("ids", expanding=True)))
    .order_by(_l.execution_id, _l.sequence)
)
_STORE_IDS = select(_l.store_id).where(_l.store_id.is_not(None)).distinct()
_SAVE_LINK = upsert(tables.checkpoint_files, "execution_id", "sequence")
_MOVE_LINK = fixed(
    set_columns(update(tables.checkpoint_files), "execution_id").where(
        _l.execution_id == value(), _l.sequence == value()
    )
)

_r = tables.node_results.c
_NODE_RESULT = select(tables.node_results).where(_r.key == bindparam("key"))
_CHANGES = select(_r.changed).where(_r.changed != "[]").distinct()
_ADD_NODE_RESULT = insert_or_ignore(tables.node_results)
_DELETE_NODE_RESULTS = fixed(delete(tables.node_results).where(_r.workflow_id == value()))


class SqlFileCommits:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, commit_id: str) -> FileCommit | None:
        row = self._session.fetch_one(_COMMIT, commit_id=commit_id)
        if row is None:
            return None
        return commit_of(row, self._session.fetch_by_ids(_MEMENTOS, [commit_id]))

    def tree(self, commit_id: str) -> dict[str, FileMemento]:
        parents = {row[0]: row[1] for row in self._session.fetch(_CHAIN, {"commit_id": commit_id})}
        deltas: dict[str, list[Fetched]] = {one: [] for one in chain(commit_id, parents)}
        for row in self._session.fetch_by_ids(_MEMENTOS, list(deltas)):
            deltas[row[0]].append(row)
        return file_tree(deltas.values())

    def blobs(self, batch_id: str) -> dict[BlobId, int]:
        rows = self._session.fetch(_BLOBS, {"batch_id": batch_id})
        return {BlobId(blob_id): size for blob_id, size in rows}

    def parents(self) -> dict[str, tuple[str | None, datetime]]:
        rows = self._session.fetch(_PARENTS)
        return {commit: (parent, time_value(at)) for commit, parent, at in rows}

    def in_use(self) -> set[str]:
        return {row[0] for row in self._session.fetch(_IN_USE)}

    def contents(self, commit_ids: Sequence[str]) -> set[BlobId]:
        return {BlobId(row[0]) for row in self._session.fetch_by_ids(_CONTENTS, commit_ids)}

    def add(self, commit: FileCommit) -> None:
        if self._session.write(_ADD, commit_row(commit)):
            self._session.write_many(_ADD_MEMENTO, memento_rows(commit))

    def delete_many(self, commit_ids: Sequence[str]) -> None:
        self._session.write_by_ids(_DELETE_COMMITS, commit_ids)


class SqlCheckpointFiles:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, execution_id: str) -> builtins.list[CheckpointFileLink]:
        rows = self._session.fetch(_LINKS, {"execution_id": execution_id})
        return [link_of(row) for row in rows]

    def list_many(
        self, execution_ids: Sequence[str]
    ) -> dict[str, builtins.list[CheckpointFileLink]]:
        found: dict[str, list[CheckpointFileLink]] = {}
        for row in self._session.fetch_by_ids(_LINKS_OF_MANY, execution_ids):
            link = link_of(row)
            found.setdefault(link.execution_id, []).append(link)
        return found

    def store_ids(self) -> set[BlobId]:
        return {BlobId(row[0]) for row in self._session.fetch(_STORE_IDS)}

    def save(self, link: CheckpointFileLink) -> None:
        self._session.write(_SAVE_LINK, link_row(link))

    def move(self, execution_id: str, sequences: Sequence[int], to_execution_id: str) -> None:
        rows = [(to_execution_id, execution_id, sequence) for sequence in sequences]
        self._session.write_many(_MOVE_LINK, rows)


class SqlNodeResults:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, key: str) -> NodeResult | None:
        row = self._session.fetch_one(_NODE_RESULT, key=key)
        return None if row is None else node_result_of(row)

    def blobs(self) -> set[BlobId]:
        return changed_blobs(row[0] for row in self._session.fetch(_CHANGES))

    def add(self, result: NodeResult) -> None:
        self._session.write(_ADD_NODE_RESULT, node_result_row(result))

    def delete(self, workflow_id: str) -> int:
        return self._session.write(_DELETE_NODE_RESULTS, (workflow_id,))
