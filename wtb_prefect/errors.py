"""Every error this project raises on purpose.

WTBError
├── InvalidInputError        the request cannot be run as written (exit status 2)
│   ├── NotFoundError        a name that does not exist: says what was asked and what exists
│   ├── GraphError           the graph does not compile, or cannot be used as it is
│   ├── StateError           a state that misses a key, or that cannot be checkpointed
│   └── IllegalMoveError     an execution cannot be paused, resumed, rolled back as it stands
├── BatchBusyError           another live process runs this batch
└── InfrastructureError      a server, Ray, a disk or a database failed (exit status 4)
    ├── LedgerError          the ledger cannot be opened, read or written
    ├── CheckpointError      a checkpoint is missing or cannot be read
    └── FileTrackingError    a blob or a workspace is missing, damaged or cannot be written
"""

from __future__ import annotations

from collections.abc import Iterable


class WTBError(Exception):
    """Root of the errors raised by wtb-prefect."""


class FilesOutsideWarning(UserWarning):
    """Nodes wrote to the process's current directory, which all cells share."""


class InvalidInputError(WTBError):
    """The request cannot be run as written; nothing was started."""


class NotFoundError(InvalidInputError):
    """Something was named that does not exist.

    Args:
        kind: what was looked for, for example `"variant of node 'answer'"`.
        asked: the name as it was given.
        exists: the names that could have been given instead.
    """

    def __init__(self, kind: str, asked: str, exists: Iterable[str] = ()) -> None:
        self.kind = kind
        self.asked = asked
        self.exists = sorted(exists)
        known = ", ".join(self.exists[:20]) if self.exists else "none"
        more = f" and {len(self.exists) - 20} more" if len(self.exists) > 20 else ""
        super().__init__(f"no {kind} {asked!r}; there is: {known}{more}")

    def __reduce__(self) -> tuple[type[NotFoundError], tuple[str, str, list[str]]]:
        # Exceptions travel between Ray workers by pickle, which calls __init__ with args.
        return type(self), (self.kind, self.asked, self.exists)


class GraphError(InvalidInputError):
    """The graph does not compile, or cannot be used as it is."""


class StateError(InvalidInputError):
    """A state that misses a required key, or that cannot be checkpointed."""


class IllegalMoveError(InvalidInputError):
    """An execution cannot be moved like that as it stands; it was left as it is."""


class BatchBusyError(WTBError):
    """Another live process runs this batch."""


class InfrastructureError(WTBError):
    """Something outside the workflow failed: a server, Ray, a disk, a database."""


class LedgerError(InfrastructureError):
    """The ledger cannot be opened, read or written."""


class CheckpointError(InfrastructureError):
    """A checkpoint is missing or cannot be read."""


class FileTrackingError(InfrastructureError):
    """A blob or a workspace is missing, damaged or cannot be written."""
