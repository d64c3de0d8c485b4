"""Which process has made which workspace: a small file for each, beside the workspaces."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from wtb_prefect.domain.batch_test import Owner
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.processes import this_process

_LOCK = ".lock"


class WorkspaceOwners:
    """`<folder>/<name of the workspace>.json`; one without a file belongs to people.

    The file is written before the workspace is made and goes after it: whenever a process dies,
    what it leaves can be told from what it has kept.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder

    def claim(self, workspace: Path) -> None:
        """This process is about to make the workspace."""
        owner = this_process()
        record = {
            "host": owner.host,
            "pid": owner.pid,
            "started": owner.started,
            "workspace": str(workspace.relative_to(self._root)),
        }
        try:
            with self.locked():
                beside = self._folder / f".{secrets.token_hex(8)}"
                try:
                    beside.write_text(json.dumps(record))
                    beside.replace(self._file(workspace))
                finally:
                    beside.unlink(missing_ok=True)  # half of it on a full disk
        except OSError as exc:
            raise FileTrackingError(
                f"cannot claim the workspace {str(workspace)!r}: {exc}"
            ) from exc

    def release(self, workspace: Path) -> None:
        """The workspace is gone, or is kept for people."""
        with contextlib.suppress(OSError):  # read-only, or never claimed
            self._file(workspace).unlink(missing_ok=True)

    def claims(self) -> Iterator[tuple[Path, Owner]]:
        """Each workspace that is claimed, and by whom."""
        for file in sorted(self._folder.glob("*.json")):
            found = self._read(file)
            if found is not None:
                yield found

    def owner_of(self, workspace: Path) -> Owner | None:
        """Who claims it now."""
        found = self._read(self._file(workspace))
        return None if found is None else found[1]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody claims anything meanwhile, in any process of this machine."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / _LOCK, "w", encoding="utf-8") as file:
            if sys.platform != "win32":
                import fcntl  # noqa: PLC0415 - not on Windows

                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _file(self, workspace: Path) -> Path:
        return self._folder / f"{workspace.name}.json"

    def _read(self, file: Path) -> tuple[Path, Owner] | None:
        """None if it is gone, or not of this form: then it claims nothing."""
        try:
            record = json.loads(file.read_text())
            owner = Owner(
                host=str(record["host"]), pid=int(record["pid"]), started=float(record["started"])
            )
            workspace = Path(os.path.normpath(self._root / record["workspace"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_inside = workspace != self._root and workspace.is_relative_to(self._root)
        return (workspace, owner) if is_inside and workspace.name == file.stem else None
