"""Other processes that work on a ledger, in the words of a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPEN = """
import sys
from tests.contracts import ledger_rows as make
from wtb_prefect.infrastructure.database.engine import open_engine
from wtb_prefect.infrastructure.database.schema import upgrade
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork

engine = open_engine(sys.argv[1])
upgrade(engine)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Runs `code` with `engine` open on the database that the first argument names."""
    return subprocess.Popen(
        [sys.executable, "-c", OPEN + code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed; an assertion fails if it failed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out
