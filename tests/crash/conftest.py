"""A warm process for the whole suite, and its figures at the end."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from fault_points import PREPARED, TALLY, WHOLE
from warm import Warm

_began = time.monotonic()


def can_trace() -> str | None:
    """Why this machine cannot inject faults; None: it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(
        ["strace", "-f", "-e", "inject=fsync:error=EIO:when=1", "-o", "/dev/null", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"this process may not trace others: {done.stderr.strip()}" if done.returncode else None


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """With the stores of every operation kept, as they are before it."""
    if (why := can_trace()) is not None:
        pytest.skip(why)
    made = Warm(tmp_path_factory.mktemp("warm"))
    for name in PREPARED:
        made.clear()
        made.do("prepare", name)
        made.keep(name)
    yield made
    made.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not (TALLY.points or TALLY.mutants or TALLY.checks):
        return
    tell = terminalreporter.write_line
    total = sum(TALLY.points.values())
    level = "all points" if WHOLE else "a sample; WTB_CRASH=all runs all"
    seconds = time.monotonic() - _began
    tell(f"crash suite ({level}), {seconds:.0f} s:")
    tell(f"  {total} fault points, {len(TALLY.violations)} violations; {dict(TALLY.points)}")
    tell(f"  {len(TALLY.missed)} points were not reached: {TALLY.missed[:5]}")
    tell(f"  {len(TALLY.mutants)} mutants caught: {dict(TALLY.mutants)}")
    tell(f"  other checks: {dict(TALLY.checks)}")
