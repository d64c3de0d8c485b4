"""Logs of executions as `<folder>/<execution id>.log`."""

from __future__ import annotations

from pathlib import Path


class FolderLogFiles:
    """See `LogFiles`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, execution_id: str) -> int:
        """See `LogFiles.size`."""
        try:
            return self._file(execution_id).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, execution_id: str) -> None:
        """See `LogFiles.remove`."""
        self._file(execution_id).unlink(missing_ok=True)

    def _file(self, execution_id: str) -> Path:
        return self._folder / f"{execution_id}.log"
