"""Ending a run that was told to end: the books are closed first, however long that takes."""

from __future__ import annotations

import subprocess
import sys

ALARMED = """
import asyncio, os, signal, time
from wtb_prefect.infrastructure.event_loop import {run}

def end(number, frame):
    signal.alarm(1)  # what Ray's handler does before it hands on to this one
    raise SystemExit(143)

async def work():
    try:
        {tell}
        await asyncio.sleep(30)
    finally:
        time.sleep(2)
        print("closed", flush=True)

signal.signal(signal.SIGTERM, {handler})
{run}(work())
"""


def test_an_alarm_of_another_handler_does_not_cut_it_short() -> None:
    """Of a handler that raises, as Prefect's does, and of our own."""
    kill = "os.kill(os.getpid(), signal.SIGTERM)"
    handled = ALARMED.format(run="run_in_thread", tell=kill, handler="end")
    own = ALARMED.format(
        run="run_blocking", tell=f"signal.alarm(1); {kill}", handler="signal.SIG_DFL"
    )
    for code in (handled, own):
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (143, "closed\n"), (code, done.stderr)
