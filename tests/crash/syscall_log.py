"""What strace wrote, read as what would survive a power cut: kill -9 leaves the page cache.

A content counts as durable once its file, or its whole file system, was synced after the last
write to it; a name, once its folder was synced after it was given. `sync_file_range` makes
nothing durable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

OPTIONS = [
    *("-tt", "-y", "-s", "70000"),
    "-e",
    "trace=openat,?creat,write,?writev,pwrite64,fsync,fdatasync,syncfs,?rename,?renameat,?renameat2",
]
_LINE = re.compile(r"\s*(\d+) +[\d:.]+ (\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_BEGUN = re.compile(r"\s*(\d+) +[\d:.]+ (\w+)\((.*) <unfinished \.\.\.>$", re.DOTALL)
_ENDED = re.compile(r"\s*(\d+) +[\d:.]+ <\.\.\. (\w+) resumed>(.*)\) += (-?\d+)", re.DOTALL)
_FILE = re.compile(r"^\d+<([^>]*)>")
_PATHS = re.compile(r'"([^"]*)"')
_BLOB = re.compile(r"/objects/([0-9a-f]{2})/([0-9a-f]{62})$")
_BLOB_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_CHECKPOINT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-6[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(slots=True)
class Disk:
    """What is written but not durable, after each call of a log."""

    dirty: set[str] = field(default_factory=set)
    unsaved_names: set[str] = field(default_factory=set)
    blobs: dict[str, str] = field(default_factory=dict)
    unsaved_checkpoints: set[str] = field(default_factory=set)
    checkpoints: set[str] = field(default_factory=set)

    def lost(self, blob_id: str) -> str | None:
        """What a power cut would take of a blob now."""
        path = self.blobs.get(blob_id)
        if path is None or path in self.dirty:
            return "its content"
        return "its name" if path in self.unsaved_names else None

    def opened(self, path: str) -> None:
        self.unsaved_names.add(path)
        self._blob(path)

    def renamed(self, old: str, new: str) -> None:
        if old in self.dirty:
            self.dirty.discard(old)
            self.dirty.add(new)
        self.unsaved_names.discard(old)
        self.unsaved_names.add(new)
        self._blob(new)

    def synced(self, path: str) -> None:
        self.dirty.discard(path)
        kept = {name for name in self.unsaved_names if os.path.dirname(name) != path}
        self.unsaved_names = kept
        if path.endswith("-wal") and not path.endswith("w.db-wal"):
            self.unsaved_checkpoints.clear()

    def all_synced(self) -> None:
        self.dirty.clear()
        self.unsaved_names.clear()
        self.unsaved_checkpoints.clear()

    def _blob(self, path: str) -> None:
        if (found := _BLOB.search(path)) is not None:
            self.blobs[found[1] + found[2]] = path


@dataclass(slots=True)
class Order:
    """What a log says: which blobs and checkpoints the ledger named, and which it named too early.

    `ledger_syncs`: how often the ledger's log was synced.
    """

    blobs: set[str]
    checkpoints: set[str]
    unnamed: set[str]
    ledger_syncs: int
    violations: list[str]


def order_of(log: str) -> Order:
    """Every blob and every checkpoint is durable before the ledger's first write that names it."""
    made = {name for _, name in _made(log)}
    disk = Disk()
    order = Order(set(), set(), set(), 0, [])
    for call, text in calls(log):
        path = _FILE.match(text)
        if path is None or not path[1].endswith(("/w.db", "/w.db-wal")):
            _follow(disk, call, text, None if path is None else path[1])
        elif call in ("fsync", "fdatasync"):
            order.ledger_syncs += 1
        else:
            _look(order, disk, text, made)
    order.unnamed |= made - order.blobs
    return order


def _made(log: str) -> Iterator[tuple[str, str]]:
    """Paths and ids of the blobs that get their names in a log."""
    for call, text in calls(log):
        if call.startswith("rename") or "O_CREAT" in text:
            path = _PATHS.findall(text)[-1]
            if (found := _BLOB.search(path)) is not None:
                yield path, found[1] + found[2]


def _look(order: Order, disk: Disk, text: str, made: set[str]) -> None:
    """At a write to the ledger; a page has older names on it, too."""
    for name in sorted(set(_BLOB_ID.findall(text)) & made - order.blobs):
        order.blobs.add(name)
        if (what := disk.lost(name)) is not None:
            order.violations.append(f"the ledger names blob {name} before {what} is durable")
    names = set(_CHECKPOINT_ID.findall(text)) & disk.checkpoints - order.checkpoints
    for name in sorted(names):
        order.checkpoints.add(name)
        if name in disk.unsaved_checkpoints:
            order.violations.append(f"the ledger names checkpoint {name} before it is synced")


def calls(log: str) -> Iterator[tuple[str, str]]:
    """Names and arguments of the calls that succeeded, in the order in which they ended."""
    begun: dict[str, str] = {}
    for line in log.splitlines():
        if (found := _BEGUN.match(line)) is not None:
            begun[found[1]] = found[3]
        elif (found := _ENDED.match(line)) is not None:
            if int(found[4]) >= 0:
                yield found[2], begun.pop(found[1], "") + found[3]
        elif (found := _LINE.match(line)) is not None and int(found[4]) >= 0:
            yield found[2], found[3]


def _follow(disk: Disk, call: str, text: str, path: str | None) -> None:
    if call in ("rename", "renameat", "renameat2"):
        old, new = _PATHS.findall(text)[:2]
        disk.renamed(old, new)
    elif call in ("openat", "creat") and "O_CREAT" in text:
        disk.opened(_PATHS.findall(text)[0])
    elif call == "syncfs":
        disk.all_synced()
    elif path is not None and call in ("fsync", "fdatasync"):
        disk.synced(path)
    elif path is not None and call in ("write", "pwrite64", "writev"):
        disk.dirty.add(path)
        if path.endswith("-wal"):
            found = set(_CHECKPOINT_ID.findall(text)) - disk.checkpoints
            disk.checkpoints |= found
            disk.unsaved_checkpoints |= found
