"""What user code printed or logged while an execution ran."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line; a log record or a traceback may hold several lines of text.

    `level` is `stdout`, `stderr`, the level of a log record (`WARNING`), or `traceback` for what
    ended the execution. `node` is the node's path (`outer|inner`), `evaluator NAME`, or None
    between nodes.
    """

    execution_id: str
    at: datetime
    node: str | None
    level: str
    text: str
