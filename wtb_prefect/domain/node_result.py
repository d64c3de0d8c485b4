"""A node's result kept to be used again: its state writes and what it did to the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from wtb_prefect.domain.file_processing import FileMemento


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedNode:
    """A node declared as depending on its code, these state keys and its files alone.

    `variant` None: all of its implementations.
    """

    node: str
    reads: tuple[str, ...]
    variant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStart:
    """What a node finds where it may be answered from the cache, apart from its input.

    `commit_id` names the files of `tree`; `batch_id` is where a result may be used whose code
    could not be identified.
    """

    batch_id: str | None
    commit_id: str | None
    tree: Mapping[str, FileMemento]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnValue:
    """What a node returned, serialised as checkpoints are, under the key of what it depends on.

    It becomes a `NodeResult` with the record of its super-step; `settled` is called once that is
    in the ledger.
    """

    key: str
    node: str
    fingerprint: str
    encoding: str
    payload: bytes
    settled: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """What a node returned for equal code, equal declared state keys and equal files.

    `payload` is what the node returned, serialised as checkpoints are; `changed` and `removed` are
    what it did to the workspace; `seconds` what it took when it ran.
    """

    key: str
    workflow_id: str
    node: str
    fingerprint: str
    encoding: str
    payload: bytes
    changed: tuple[FileMemento, ...]
    removed: tuple[str, ...]
    seconds: float
    created_at: datetime
    execution_id: str
