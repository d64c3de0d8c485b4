"""What differs between two trees of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wtb_prefect.domain.file_processing import FileMemento


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDifference:
    """Paths that only the second has, that only the first has, and that differ (also in mode)."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def compare_files(
    first: Mapping[str, FileMemento], second: Mapping[str, FileMemento]
) -> FileDifference:
    """The difference of two trees, each list by path."""
    return FileDifference(
        added=tuple(sorted(second.keys() - first.keys())),
        removed=tuple(sorted(first.keys() - second.keys())),
        changed=tuple(p for p in sorted(first.keys() & second.keys()) if first[p] != second[p]),
    )
