"""Where faults are injected: every system call of an operation that changes its stores."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from warm import Warm

T = TypeVar("T")

OPERATION_NAMES = ("commit", "fork", "update", "outbox", "repair", "gc")
PREPARED = (*OPERATION_NAMES, "many")
"""Those of `operations`, which only the warm process can import; `many` is for the durability order
and for damaged contents."""

CALLS = (
    *("openat", "write", "pwrite64", "writev", "fsync", "fdatasync", "sync_file_range", "syncfs"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "ftruncate", "truncate"),
    *("chmod", "fchmod", "fchmodat", "utimensat", "fallocate", "copy_file_range"),
)
TRACE = ["-y", "-e", "trace=?" + ",?".join(CALLS)]
KINDS = {
    "kill": "signal=SIGKILL",
    "full disk": "error=ENOSPC",
    "broken disk": "error=EIO",
    "no descriptors": "error=EMFILE",
}
OPENS = "no descriptors"
"""The kind of fault that only opening a file can meet, also one that is only read."""
WHOLE = os.environ.get("WTB_CRASH") == "all"
_LINE = re.compile(r"\s*(\d+) +(\w+)\((.*)")


@dataclass(frozen=True, slots=True)
class Point:
    """The nth call of a name: what strace counts."""

    call: str
    number: int
    text: str

    def inject(self, kind: str) -> list[str]:
        what = f"inject={self.call}:{KINDS[kind]}:when={self.number}"
        return ["-e", f"trace={self.call}", "-e", what]

    def __str__(self) -> str:
        return f"{self.call} {self.number} ({self.text[:120]})"


@dataclass(slots=True)
class Tally:
    """What the suite has done, for the last lines of its output. `missed`: points at which nothing
    was injected, because the operation took another way."""

    points: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    mutants: dict[str, str] = field(default_factory=dict)
    checks: Counter[str] = field(default_factory=Counter)


TALLY = Tally()


def points_of(warm: Warm, name: str, mutant: str | None = None, opens: bool = False) -> list[Point]:
    """Every call of an operation that changes a store, or every one that opens a file of it, found
    by doing it once."""
    warm.put_back(name)
    ended, log = warm.under_strace("run", name, options=TRACE, mutant=mutant)
    assert ended == 0, warm.error()
    touches = _opens if opens else _changes
    return list(_points(log, warm.folder, touches))


def _points(log: str, folder: Path, touches: Callable[[str, str], bool]) -> Iterator[Point]:
    count: Counter[str] = Counter()
    for line in log.splitlines():
        if (found := _LINE.match(line)) is None:
            continue
        _, call, text = found.groups()
        count[call] += 1
        if touches(call, text) and (f"{folder}/out" in text or f"{folder}/w.db" in text):
            yield Point(call, count[call], text.replace(f"{folder}/", ""))


def _changes(call: str, text: str) -> bool:
    """Opening a file to read it changes nothing."""
    if call == "openat" and "O_CREAT" not in text and "O_TRUNC" not in text:
        return False
    # Shared memory is made anew by whoever opens the ledger next.
    return not (call == "pwrite64" and "-shm>" in text)


def _opens(call: str, text: str) -> bool:
    return call == "openat"


def spread(found: Sequence[T], count: int) -> list[T]:
    """So many of them, spread evenly; all of them in the whole suite."""
    if WHOLE or len(found) <= count:
        return list(found)
    return [found[number * len(found) // count] for number in range(count)]


def violations_at(
    warm: Warm,
    name: str,
    kind: str,
    point: Point,
    expected: Any,
    mutant: str | None = None,
    then: str | None = None,
) -> list[str]:
    """Does the operation with a fault at a point, then looks at what there is, and does it again.

    `mutant` is of the operation, `then` of the looking, the repair and the rerun.
    """
    warm.put_back(name)
    options = point.inject(kind)
    ended, log = warm.under_strace("run", name, options=options, mutant=mutant)
    if ended != -signal.SIGKILL and "(INJECTED)" not in log:
        TALLY.missed.append(f"{name}, {kind} at {point}")
        return []
    TALLY.points[f"{name}, {kind}"] += mutant is None and then is None
    acknowledged = ended == 0
    found = warm.do("judge", name, expected, kind == "kill", acknowledged, mutant=then)
    return [f"{name}, {kind} at {point}: {violation}" for violation in found]
