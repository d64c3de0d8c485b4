"""A node's result kept to be used again: its state writes and what it did to the files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from wtb_prefect.domain.file_processing import FileMemento


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
