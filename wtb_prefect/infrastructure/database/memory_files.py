"""File commits, which of them belong to which checkpoint, and kept results of nodes, in memory."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit, FileMemento
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.node_result import NodeResult
from wtb_prefect.infrastructure.database import file_rows, rows, tables
from wtb_prefect.infrastructure.database.codecs import time_value
from wtb_prefect.infrastructure.database.memory_tables import MemoryRepository


class MemoryFileCommits(MemoryRepository):
    def get(self, commit_id: str) -> FileCommit | None:
        row = self._session.get(tables.file_commits, (commit_id,))
        return None if row is None else file_rows.commit_of(row, self._delta(commit_id))

    def tree(self, commit_id: str) -> dict[str, FileMemento]:
        parents = {row[0]: row[1] for row in self._session.where(tables.file_commits)}
        return file_rows.file_tree(map(self._delta, file_rows.chain(commit_id, parents)))

    def blobs(self, batch_id: str) -> dict[BlobId, int]:
        ours = self._session.where(tables.executions, batch_id=batch_id)
        executions = [rows.execution_of(row) for row in ours]
        links = MemoryCheckpointFiles(self._session)
        found = {execution.commit_id for execution in executions}
        found |= {link.commit_id for e in executions for link in links.list(e.execution_id)}
        parents = {row[0]: row[1] for row in self._session.where(tables.file_commits)}
        lines = (file_rows.chain(commit, parents) for commit in found if commit is not None)
        commits = [self.get(commit) for commit in {one for line in lines for one in line}]
        return {m.blob_id: m.size for c in commits if c is not None for m in c.changed}

    def parents(self) -> dict[str, tuple[str | None, datetime]]:
        found = self._session.where(tables.file_commits)
        return {commit: (parent, time_value(at)) for commit, parent, _, at in found}

    def in_use(self) -> set[str]:
        executions = {
            execution.execution_id: execution
            for execution in map(rows.execution_of, self._session.where(tables.executions))
        }
        links = map(file_rows.link_of, self._session.where(tables.checkpoint_files))
        named = {link.commit_id for link in links}
        for execution in executions.values():
            named |= {execution.commit_id}
            named |= {execution.lineage.commit_id} if execution.lineage else set()
        found = self._session.where(tables.file_commits)
        named |= {commit for commit, _, maker, _ in found if maker in executions}
        return {commit for commit in named if commit is not None}

    def contents(self, commit_ids: Sequence[str]) -> set[BlobId]:
        found = map(self.get, commit_ids)
        return {m.blob_id for commit in found if commit is not None for m in commit.changed}

    def delete_many(self, commit_ids: Sequence[str]) -> None:
        for commit_id in commit_ids:
            self._session.remove(tables.file_commits, commit_id=commit_id)
            self._session.remove(tables.file_mementos, commit_id=commit_id)

    def add(self, commit: FileCommit) -> None:
        if self._session.put_new(tables.file_commits, file_rows.commit_row(commit)):
            for row in file_rows.memento_rows(commit):
                self._session.put(tables.file_mementos, row)

    def _delta(self, commit_id: str) -> Sequence[rows.Row]:
        return self._session.where(tables.file_mementos, order=("position",), commit_id=commit_id)


class MemoryCheckpointFiles(MemoryRepository):
    def list(self, execution_id: str) -> builtins.list[CheckpointFileLink]:
        found = self._session.where(
            tables.checkpoint_files, order=("sequence",), execution_id=execution_id
        )
        return [file_rows.link_of(row) for row in found]

    def list_many(
        self, execution_ids: Sequence[str]
    ) -> dict[str, builtins.list[CheckpointFileLink]]:
        return self._by_execution(
            tables.checkpoint_files, execution_ids, file_rows.link_of, "sequence"
        )

    def store_ids(self) -> set[BlobId]:
        links = map(file_rows.link_of, self._session.where(tables.checkpoint_files))
        return {link.store_id for link in links if link.store_id is not None}

    def save(self, link: CheckpointFileLink) -> None:
        self._session.put(tables.checkpoint_files, file_rows.link_row(link))

    def move(self, execution_id: str, sequences: Sequence[int], to_execution_id: str) -> None:
        moved = [link for link in self.list(execution_id) if link.sequence in set(sequences)]
        for link in moved:
            where = {"execution_id": execution_id, "sequence": link.sequence}
            self._session.remove(tables.checkpoint_files, **where)
            self.save(replace(link, execution_id=to_execution_id))


class MemoryNodeResults(MemoryRepository):
    def get(self, key: str) -> NodeResult | None:
        return self._get(tables.node_results, file_rows.node_result_of, key)

    def blobs(self) -> set[BlobId]:
        results = map(file_rows.node_result_of, self._session.where(tables.node_results))
        return {memento.blob_id for result in results for memento in result.changed}

    def add(self, result: NodeResult) -> None:
        self._session.put_new(tables.node_results, file_rows.node_result_row(result))

    def delete(self, workflow_id: str) -> int:
        found = self._session.where(tables.node_results, workflow_id=workflow_id)
        self._session.remove(tables.node_results, workflow_id=workflow_id)
        return len(found)
