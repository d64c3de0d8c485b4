"""Which process this is, and whether another one still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from wtb_prefect.domain.batch_test import Owner


def this_process() -> Owner:
    """The owner mark of the current process."""
    pid = os.getpid()
    return Owner(host=socket.gethostname(), pid=pid, started=_started(pid) or 0.0)


def is_alive(owner: Owner) -> bool:
    """Whether an owner still runs. One on another host cannot be seen and counts as alive.

    A pid alone is not enough: after a crash the system may have given it to another process.
    """
    if owner.host != socket.gethostname():
        return True
    return _started(owner.pid) == owner.started


def _started(pid: int) -> float | None:
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat); None if it is gone.

    The second field, the command name, may hold spaces and parentheses: count from its end.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc").is_dir() else _signalled(pid)
    return float(stat.rpartition(")")[2].split()[19])


def _signalled(pid: int) -> float | None:
    """Without /proc (macOS) the pid is all there is: 0.0 stands for "it runs"."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0.0
    return 0.0
