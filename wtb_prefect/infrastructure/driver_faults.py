"""What database drivers raise, without importing one that nobody uses."""

from __future__ import annotations

import sqlite3
import sys


def driver_faults() -> tuple[type[Exception], ...]:
    """The errors of the drivers that are loaded; used as `except driver_faults()`, which asks only
    when something was raised."""
    psycopg = sys.modules.get("psycopg")
    return (sqlite3.Error,) if psycopg is None else (sqlite3.Error, psycopg.Error)


def one_line(exc: BaseException) -> str:
    """What a driver said: servers send several lines."""
    return " ".join(str(exc).split()) or type(exc).__name__
