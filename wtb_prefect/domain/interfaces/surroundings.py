"""What surrounds user code while it runs: its log, its current directory, what must not leak."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.log_line import LogLine


class CellLogReader(Protocol):
    def read(self, execution_id: str) -> list[LogLine]:
        """What was printed and logged by one execution (its prefixes apart), in order."""
        ...


class CellLogFiles(Protocol):
    """The same logs as files to measure and remove."""

    def size(self, execution_id: str) -> int:
        """Bytes; 0 where there is none."""
        ...

    def remove(self, execution_id: str) -> None:
        """Takes it away; none is no error."""
        ...


class OutsideFiles(Protocol):
    def found(self) -> Sequence[str]:
        """Names of files that appeared or changed in the process's current directory since the
        watch began; empty where nodes work in their own workspace anyway."""
        ...


class Surroundings(Protocol):
    """Whatever process runs stretches, user code finds the same around it."""

    def chunk(self) -> AbstractContextManager[OutsideFiles]:
        """Around the stretches of a chunk: prints and log records are kept with the execution
        whose code makes them."""
        ...

    def evaluator(
        self, execution_id: str, workspace: Workspace, name: str
    ) -> AbstractContextManager[None]:
        """Around a call of an evaluator."""
        ...

    def mask(self, text: str) -> str:
        """The text without the values of secrets of this process's environment."""
        ...
