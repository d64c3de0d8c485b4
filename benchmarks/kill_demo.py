"""The demo, killed at random moments and started again: `make bench-kill`.

`python -m benchmarks.kill_demo [--kills 30] [--runner inline|ray] [--seed 1]` runs the demo once
undisturbed, then kills its driver (SIGKILL) at random moments, each time starting the same command
again, and compares what both have in the end: every cell's status and scores, and node bodies. A
folder whose batch came to its end before all kills were done is followed by a fresh one.

Bodies that were called and got lost with the driver are in no ledger. So the driver notes every
call of a node in a file; with Ray the calls happen in other processes and are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

CALLS = "WTB_KILL_DEMO_CALLS"
"""Names the file in which the driver notes each call of a node."""


def main() -> int:
    """Exit status 1 if results differ, or an item in flight repeated more than one body."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_demo", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--runner", choices=("inline", "ray"), default="inline")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--driver", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.driver:
        return drive(arguments.driver, arguments.runner)
    with tempfile.TemporaryDirectory(prefix="wtb-kill-") as folder:
        return measure(Path(folder), arguments.kills, arguments.runner, arguments.seed)


def drive(folder: str, runner: str) -> int:
    """`wtb demo`, with a note of every call of a node."""
    from wtb_prefect.cli import entry

    _note_calls(os.environ[CALLS])
    sys.argv = ["wtb", "demo", folder, "--runner", runner]
    entry()
    return 0


def _note_calls(file: str) -> None:
    from wtb_prefect.infrastructure.workflow.node_executors import DefaultNodeExecutor, NodeCall

    execute = DefaultNodeExecutor.execute
    target = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def noted(self: DefaultNodeExecutor, call: NodeCall) -> Any:
        step = call.config.get("metadata", {}).get("langgraph_step")
        thread = call.config.get("configurable", {}).get("thread_id")
        os.write(target, f"{os.getpid()} {thread} {call.node}@{step}\n".encode())
        return await execute(self, call)

    DefaultNodeExecutor.execute = noted  # type: ignore[method-assign]


def measure(folder: Path, kills: int, runner: str, seed: int) -> int:
    """Runs everything and prints what was found."""
    chance = random.Random(seed)
    began = time.perf_counter()
    assert _wait(_start(folder / "undisturbed", runner)) == 0
    seconds = time.perf_counter() - began
    wanted = results(folder / "undisturbed")
    size = len(calls(folder / "undisturbed"))
    print(f"undisturbed: {wanted['bodies']} bodies, {len(wanted['cells'])} cells, {seconds:.0f} s")
    done, number, same, worst, repeats = 0, 0, True, 0, 0
    while done < kills:
        demo = folder / f"killed{number}"
        number += 1
        here = 0
        while done < kills and kill_once(demo, runner, chance.uniform(0, seconds / 3)):
            done, here = done + 1, here + 1
        assert _wait(_start(demo, runner)) == 0
        found = results(demo)
        same = same and found == wanted
        again = repeated(demo)
        worst, repeats = max([worst, *again.values()]), repeats + again.total()
        assert runner != "inline" or len(calls(demo)) == size + again.total()
        print(
            f"{here} kills, then to the end: results and bodies equal: {found == wanted}, "
            f"{again.total()} bodies repeated, {max(again.values(), default=0)} at most per item"
        )
    print(
        f"| kill -9 of the driver at {done} random moments of the demo ({runner}) | results "
        f"{'equal' if same else 'DIFFER'}, {repeats} bodies repeated, at most {worst} per item in "
        "flight | equal, at most 1 |"
    )
    return 0 if same and worst <= 1 else 1


def kill_once(demo: Path, runner: str, seconds: float) -> bool:
    """Kills a run after so many seconds; False if it came to its end before."""
    process = _start(demo, runner)
    with suppress(subprocess.TimeoutExpired):
        assert process.wait(seconds) == 0
        return False
    process.kill()
    killed = process.wait() == -signal.SIGKILL
    # Ray and a Prefect server that the driver started outlive it for a while.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return killed


def _start(demo: Path, runner: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.kill_demo", "--driver", str(demo)]
    return subprocess.Popen(
        [*command, "--runner", runner],
        env={**os.environ, CALLS: f"{demo}.calls"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes]) -> int:
    return process.wait(900)


def results(demo: Path) -> dict[str, Any]:
    """Status and scores of every cell, and the node bodies that are behind them."""
    project = f"{demo / 'project.py'}:project"
    command = [sys.executable, "-m", "wtb_prefect.cli", "results", project, "--cells", "--json"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    document = json.loads(shown.stdout)
    cells = {
        f"{cell['combination']} {cell['case_id']} {cell['repeat']}": [
            cell["status"],
            cell["scores"],
        ]
        for cell in document["cells"]
    }
    return {"cells": cells, "bodies": document["node_executions"]}


def calls(demo: Path) -> list[tuple[str, str, str]]:
    """(process, execution, visit of a node) of every call, in order."""
    file = Path(f"{demo}.calls")
    lines = file.read_text().splitlines() if file.exists() else []
    return [(pid, thread, visit) for pid, thread, visit in map(str.split, lines)]


def repeated(demo: Path) -> Counter[tuple[str, str]]:
    """(process, execution) -> bodies that another process had called for it before."""
    known: dict[tuple[str, str], str] = {}
    again: Counter[tuple[str, str]] = Counter()
    for pid, thread, visit in calls(demo):
        again[pid, thread] += known.setdefault((thread, visit), pid) != pid
    return again


if __name__ == "__main__":
    sys.exit(main())
