"""What executions printed and logged, as files to measure and remove."""

from __future__ import annotations

from typing import Protocol


class LogFiles(Protocol):
    """One log per execution, or none."""

    def size(self, execution_id: str) -> int:
        """Bytes; 0 where there is none."""
        ...

    def remove(self, execution_id: str) -> None:
        """Takes it away; none is no error."""
        ...
