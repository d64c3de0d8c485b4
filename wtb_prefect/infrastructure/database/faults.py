"""What a database says, as the ledger's error."""

from __future__ import annotations

from types import TracebackType

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure import driver_faults


def faults() -> tuple[type[BaseException], ...]:
    """Drivers speak for themselves: when a connection is set up, and where statements go to them
    directly. They are given text with lone surrogates and numbers beyond 64 bits, too."""
    drivers = driver_faults.driver_faults()
    return (SQLAlchemyError, *drivers, UnicodeEncodeError, OverflowError)


def one_line(exc: BaseException) -> str:
    """What the driver said, without the statement that SQLAlchemy adds."""
    cause = exc.orig if isinstance(exc, DBAPIError) else None
    return driver_faults.one_line(exc if cause is None else cause)


def ledger_fault(exc: BaseException) -> LedgerError:
    """What the database said, as the ledger's error."""
    return LedgerError(f"the ledger failed: {one_line(exc)}")


class LedgerFaults:
    """Inside this block, what the database says comes out as `LedgerError`."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and isinstance(exc, faults()):
            raise ledger_fault(exc) from exc


ledger_faults = LedgerFaults()
