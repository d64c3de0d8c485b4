"""File commits and links as rows, and the chains they form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit, FileMemento
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.node_result import NodeResult
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.codecs import (
    json_list,
    json_value,
    names,
    time_text,
    time_value,
)
from wtb_prefect.infrastructure.database.rows import Fetched, Row


def commit_row(commit: FileCommit) -> Row:
    return (
        commit.commit_id,
        commit.parent_id,
        commit.execution_id,
        time_text(commit.created_at),
    )


def memento_rows(commit: FileCommit) -> list[Row]:
    """The commit's change, in its order: changed files, then removed paths."""
    changed = [(m.path, m.blob_id, m.size, m.mode, m.is_symlink) for m in commit.changed]
    removed = [(path, None, None, None, None) for path in commit.removed]
    return [(commit.commit_id, n, *row) for n, row in enumerate([*changed, *removed])]


def commit_of(row: Fetched, mementos: Iterable[Fetched]) -> FileCommit:
    commit_id, parent_id, execution_id, created_at = row
    delta = list(mementos)
    return FileCommit(
        commit_id=commit_id,
        parent_id=parent_id,
        execution_id=execution_id,
        changed=tuple(memento_of(row) for row in delta if not is_removal(row)),
        removed=tuple(row[2] for row in delta if is_removal(row)),
        created_at=time_value(created_at),
    )


def memento_of(row: Fetched) -> FileMemento:
    _, _, path, blob_id, size, mode, is_symlink = row
    return FileMemento(
        path=path, blob_id=blob_id, size=size, mode=mode, is_symlink=bool(is_symlink)
    )


def is_removal(row: Fetched) -> bool:
    """Whether a row of a commit's delta says that a path is gone."""
    return row[3] is None


def link_row(link: CheckpointFileLink) -> Row:
    return (
        link.execution_id,
        link.sequence,
        link.checkpoint_id,
        link.commit_id,
        link.pending,
        link.step,
        time_text(link.created_at),
        link.parent_checkpoint_id,
        json_list(link.nodes),
        link.namespace,
        link.answers,
        link.exact,
        link.store_id,
    )


def link_of(row: Fetched) -> CheckpointFileLink:
    (
        execution_id, sequence, checkpoint_id, commit_id, pending, step, created_at,
        parent_checkpoint_id, nodes, namespace, answers, exact, store_id,
    ) = row  # fmt: skip
    return CheckpointFileLink(
        execution_id=execution_id,
        checkpoint_id=checkpoint_id,
        commit_id=commit_id,
        pending=bool(pending),
        sequence=sequence,
        step=step,
        created_at=time_value(created_at),
        parent_checkpoint_id=parent_checkpoint_id,
        nodes=names(nodes),
        namespace=namespace,
        answers=answers,
        exact=bool(exact),
        store_id=store_id,
    )


def node_result_row(result: NodeResult) -> Row:
    changed = [[m.path, m.blob_id, m.size, m.mode, m.is_symlink] for m in result.changed]
    return (
        result.key,
        result.workflow_id,
        result.node,
        result.fingerprint,
        result.encoding,
        result.payload,
        json_list(changed),
        json_list(result.removed),
        result.seconds,
        time_text(result.created_at),
        result.execution_id,
    )


def node_result_of(row: Fetched) -> NodeResult:
    (
        key, workflow_id, node, fingerprint, encoding, payload, changed, removed, seconds,
        created_at, execution_id,
    ) = row  # fmt: skip
    return NodeResult(
        key=key,
        workflow_id=workflow_id,
        node=node,
        fingerprint=fingerprint,
        encoding=encoding,
        payload=payload,
        changed=tuple(
            FileMemento(path=path, blob_id=blob, size=size, mode=mode, is_symlink=is_symlink)
            for path, blob, size, mode, is_symlink in json_value(changed)
        ),
        removed=names(removed),
        seconds=seconds,
        created_at=time_value(created_at),
        execution_id=execution_id,
    )


def changed_blobs(changes: Iterable[str]) -> set[BlobId]:
    """The blobs that the column `changed` of node results names."""
    return {BlobId(blob) for changed in changes for _, blob, *_ in json_value(changed)}


def chain(last: str, parents: Mapping[str, str | None]) -> list[str]:
    """The commits that lead to `last`, oldest first.

    Raises:
        LedgerError: a commit of the chain is not in `parents`, or comes twice.
    """
    line: list[str] = []
    seen: set[str] = set()
    current: str | None = last
    while current is not None:
        if current in seen or current not in parents:
            raise LedgerError(f"the files of commit {last} cannot be told: {current} is missing")
        line.append(current)
        seen.add(current)
        current = parents[current]
    return line[::-1]


def file_tree(deltas: Iterable[Iterable[Fetched]]) -> dict[str, FileMemento]:
    """All files after the deltas, oldest first: `FileCommit.apply` without a copy per commit."""
    tree: dict[str, FileMemento] = {}
    for rows in deltas:
        # A path that is removed and changed in one commit is there afterwards.
        delta = sorted(rows, key=lambda row: (not is_removal(row), row[1]))
        for row in delta:
            if is_removal(row):
                tree.pop(row[2], None)
            else:
                tree[row[2]] = memento_of(row)
    return tree
