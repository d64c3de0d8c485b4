"""Log files of executions: one file each, one JSON object a line, written through at once."""

from __future__ import annotations

import json
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from wtb_prefect.domain.log_line import LogLine
from wtb_prefect.infrastructure.secrets import mask_secrets

_LONGEST_PART = 64 * 1024
"""A line without an end is written in pieces of this many characters."""


class CellLogs:
    """The logs of a project: `<folder>/<execution id>.log`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, execution_id: str) -> CellLog:
        """The log to write to; makes nothing before the first line."""
        return CellLog(self._file(execution_id))

    def read(self, execution_id: str) -> list[LogLine]:
        """See `CellLogReader.read`."""
        file = self._file(execution_id)
        if not file.exists():
            return []
        lines = [_parsed(execution_id, line) for line in file.read_bytes().splitlines()]
        # A line is kept when it ends, and belongs where it began.
        return sorted(lines, key=lambda line: line.at)

    def size(self, execution_id: str) -> int:
        """See `CellLogFiles.size`."""
        try:
            return self._file(execution_id).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, execution_id: str) -> None:
        """See `CellLogFiles.remove`."""
        self._file(execution_id).unlink(missing_ok=True)

    def _file(self, execution_id: str) -> Path:
        return self._folder / f"{execution_id}.log"


class CellLog:
    """One execution's log. Lines come from any number of threads and tasks at a time.

    Each line is one append, so that a killed process loses none, and so that two processes can
    write to the same file. Text without its line end is held back per task: partial prints of
    nodes that run at the same time do not mix.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._begun: dict[tuple[str, str], tuple[str, str | None, str]] = {}
        self._broken = False

    def write(self, level: str, node: str | None, task: str, text: str) -> None:
        """Text as a stream gets it: lines, or parts of lines."""
        with self._lock:
            at, _, before = self._begun.pop((level, task), (_now(), node, ""))
            *lines, rest = (before + text).split("\n")
            for line in lines:
                self._append(at, node, level, _last_shown(line))
            if len(rest) > _LONGEST_PART:
                self._append(at, node, level, rest)
            elif rest:
                kept = f"{_last_shown(rest)}\r" if rest.endswith("\r") else _last_shown(rest)
                self._begun[level, task] = (_now() if lines else at, node, kept)

    def record(self, level: str, node: str | None, text: str) -> None:
        """One log record."""
        with self._lock:
            self._append(_now(), node, level, text)

    def flush(self) -> None:
        """Writes lines that were begun and not ended."""
        with self._lock:
            for (level, _), (at, node, text) in self._begun.items():
                self._append(at, node, level, _last_shown(text))
            self._begun.clear()

    def _append(self, at: str, node: str | None, level: str, text: str) -> None:
        # ASCII only: whatever a node prints, half a surrogate pair included, makes one valid line.
        line = json.dumps([at, node, level, mask_secrets(text)]) + "\n"
        try:
            self._write(line.encode("ascii"))
        except OSError as exc:
            # A full disk must not look like a failure of the node that prints.
            if not self._broken and sys.__stderr__ is not None:
                sys.__stderr__.write(f"wtb: {self._file} cannot be written: {exc}\n")
            self._broken = True

    def _write(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            handle = os.open(self._file, flags, 0o644)
        except FileNotFoundError:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._file, flags, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


def _last_shown(line: str) -> str:
    """What a terminal shows of a line that returns to its start, as progress bars do."""
    return line.rstrip("\r").rpartition("\r")[2]


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _parsed(execution_id: str, line: bytes) -> LogLine:
    try:
        at, node, level, text = json.loads(line)
        return LogLine(
            execution_id=execution_id,
            at=datetime.fromisoformat(at),
            node=node,
            level=level,
            text=text,
        )
    except (ValueError, TypeError):  # cut short by a full disk: shown as it is
        shown = line.decode("ascii", errors="replace")
        begin = datetime.fromtimestamp(0, UTC)
        return LogLine(execution_id=execution_id, at=begin, node=None, level="damaged", text=shown)
