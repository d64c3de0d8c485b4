"""What file tracking costs, beside the floor of the same machine in the same run.

Run: `python -m benchmarks.file_tracking [--repeats N] [--folder DIR]`. Every figure is the best and
the median of N; folders are new each time, because ext4 is slow just after many files were deleted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from wtb_prefect.domain.file_processing import FileSnapshot
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker

_SETTLE_SECONDS = 0.05
_QUICK_CALLS = 200

T = TypeVar("T")


@dataclass
class Timings:
    """Seconds by name, in the order they were first measured."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, name: str, action: Callable[[], T], calls: int = 1) -> T:
        started = time.perf_counter()
        for _ in range(calls):
            result = action()
        self.seconds.setdefault(name, []).append((time.perf_counter() - started) / calls)
        return result

    def report(self) -> str:
        rows = [f"{'':<52}{'best ms':>10}{'median ms':>11}"]
        for name, values in self.seconds.items():
            best, median = min(values) * 1000, statistics.median(values) * 1000
            rows.append(f"{name:<52}{best:>10.3f}{median:>11.3f}")
        return "\n".join(rows)


def make_files(folder: Path, count: int, size: int, seed: int) -> list[Path]:
    """`count` files of random bytes, twenty to a folder."""
    random_bytes = random.Random(seed)
    paths = []
    for number in range(count):
        path = folder / f"part-{number // 20}" / f"file-{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_bytes.randbytes(size))
        paths.append(path)
    return paths


def floor_commit(paths: list[Path], folder: Path) -> None:
    """Read, hash and copy each file; then fsync all of them, rename them, fsync the folder."""
    folder.mkdir()
    names = []
    for path in paths:
        data = path.read_bytes()
        name = folder / hashlib.sha256(data).hexdigest()
        with open(f"{name}.tmp", "wb") as copy:
            copy.write(data)
        names.append(name)
    for name in names:
        _fsync(f"{name}.tmp")
    for name in names:
        os.rename(f"{name}.tmp", name)
    _fsync(str(folder))


def _fsync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def floor_restore(paths: list[Path], folder: Path) -> None:
    """Read and hash each file, write it to a new one."""
    folder.mkdir()
    for number, path in enumerate(paths):
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        with open(f"{folder}/{number}", "wb") as copy:
            copy.write(data)


def measure_tree(timings: Timings, base: Path, count: int, size: int, seed: int) -> None:
    """First commit, unchanged snapshot and restore of one tree, each beside its floor."""
    label = f"{count} x {size} B"
    paths = make_files(base / "tree", count, size, seed)
    timings.measure(f"{label}: floor of a commit", lambda: floor_commit(paths, base / "floor"))
    tracker = LocalFileTracker(LocalBlobStore(base / "store"))
    time.sleep(_SETTLE_SECONDS)
    first = timings.measure(
        f"{label}: first commit", lambda: tracker.snapshot(base / "tree", FileSnapshot())
    )
    calls = max(1, _QUICK_CALLS // count)
    timings.measure(
        f"{label}: unchanged snapshot", lambda: tracker.snapshot(base / "tree", first), calls
    )
    timings.measure(
        f"{label}: floor of a restore", lambda: floor_restore(paths, base / "restore-floor")
    )
    copy = timings.measure(f"{label}: restore", lambda: tracker.restore(first.files, base / "copy"))
    timings.measure(
        f"{label}: snapshot right after the restore",
        lambda: tracker.snapshot(base / "copy", copy),
        calls,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", default=None, help="where to measure (default: the temp folder)"
    )
    arguments = parser.parse_args()
    timings = Timings()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as name:
        for repeat in range(arguments.repeats):
            for count, size in ((1000, 10_240), (80, 5_812), (10, 10_240)):
                base = Path(name) / f"{repeat}-{count}"
                base.mkdir()
                measure_tree(timings, base, count, size, repeat)
    print(timings.report())


if __name__ == "__main__":
    main()
