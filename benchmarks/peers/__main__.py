"""Against peers, on the same graph: `make bench-peers`.

200 cells of five async nodes of 50 ms, 16 in flight. Every repetition of every contender is a
process of its own; they alternate, in an order that moves on by one each time, and medians count.
Prints a table and writes `benchmarks/peers/results.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contenders import CONTENDERS, IN_FLIGHT, NODES, SECONDS

_ROOT = Path(__file__).parent.parent.parent
_OWN = ("bare", "wtb")
_SAME_VERSIONS = ("langgraph", "langgraph-checkpoint", "langgraph-checkpoint-sqlite")
_PEERS = ("inspect-ai", "pydantic-evals")

WHAT = {
    "bare": "bare async loop, AsyncSqliteSaver: checkpoints of every step",
    "wtb": "wtb_prefect, inline: checkpoints of every step, and the ledger",
    "inspect_ai": "Inspect AI: no checkpoints of steps, a log file",
    "pydantic_evals": "pydantic-evals: no checkpoints of steps, a report in memory",
}


@dataclass(frozen=True)
class Target:
    """wtb_prefect's time is at most `limit` times the contender's."""

    against: str
    limit: float
    words: str


TARGETS = (
    Target("bare", 1.3, "at most 1.3 times"),
    Target("inspect_ai", 1.0, "faster"),
    Target("pydantic_evals", 1.3, "at most 1.3 times"),
)

Times = dict[str, list[tuple[float, float]]]


def main() -> int:
    """Runs all repetitions; exit status 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--peers", type=Path, required=True, help="the peers' Python")
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    peers = arguments.peers.absolute()  # not resolved: the link is what makes it an environment
    versions = same_versions(peers)
    times = measure(peers, arguments.cells, arguments.repeats)
    print(table(times, arguments.cells))
    print()
    print(targets(times))
    write(times, versions, arguments.cells)
    return 0 if all(ratio(times, target.against) <= target.limit for target in TARGETS) else 1


def same_versions(peers: Path) -> dict[str, str]:
    """The versions of what is compared; stops if the two environments differ in LangGraph's."""
    ours, theirs = _versions(Path(sys.executable), ()), _versions(peers, _PEERS)
    for package in _SAME_VERSIONS:
        if ours[package] != theirs[package]:
            raise SystemExit(
                f"{package} is {ours[package]} here and {theirs[package]} beside the peers: "
                "benchmarks/peers/requirements.txt has to name the versions of constraints.txt"
            )
    return theirs


def _versions(python: Path, more: tuple[str, ...]) -> dict[str, str]:
    names = (*_SAME_VERSIONS, *more)
    code = f"import importlib.metadata as m; print(*map(m.version, {names!r}))"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return dict(zip(names, done.stdout.split(), strict=True))


def measure(peers: Path, cells: int, repeats: int) -> Times:
    """Seconds (wall, CPU) of every repetition, by contender."""
    times: Times = {name: [] for name in CONTENDERS}
    names = list(CONTENDERS)
    for repeat in range(repeats):
        print(f"repetition {repeat + 1} of {repeats} ...", file=sys.stderr)
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            python = Path(sys.executable) if name in _OWN else peers
            times[name].append(_once(python, name, cells))
    return times


def _once(python: Path, name: str, cells: int) -> tuple[float, float]:
    """One process; offline, and without a tracer that a variable of the shell might switch on."""
    silent = {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"}
    with tempfile.TemporaryDirectory(prefix="wtb-peers-") as folder:
        done = subprocess.run(
            [python, "-m", "benchmarks.peers.contenders", name, str(cells), folder],
            cwd=folder,
            env={**os.environ, **silent, "PYTHONPATH": str(_ROOT), "HOME": folder},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)


def median(times: Times, name: str) -> float:
    """The median wall time of a contender."""
    return statistics.median(wall for wall, _ in times[name])


def ratio(times: Times, against: str) -> float:
    """wtb_prefect's median over the contender's."""
    return median(times, "wtb") / median(times, against)


def table(times: Times, cells: int) -> str:
    """The contenders' medians as a Markdown table."""
    ideal = cells * NODES * SECONDS / IN_FLIGHT
    lines = [
        f"{cells} cells of {NODES} x {SECONDS * 1e3:.0f} ms, {IN_FLIGHT} in flight; "
        f"waiting alone takes {ideal:.2f} s",
        "",
        "| contender | median | least to most | a cell | CPU a cell |",
        "|---|---|---|---|---|",
    ]
    for name, measured in times.items():
        walls = [wall for wall, _ in measured]
        middle = median(times, name)
        cpu = statistics.median(cpu for _, cpu in measured)
        lines.append(
            f"| {WHAT[name]} | {middle:.2f} s | {min(walls):.2f} to {max(walls):.2f} s "
            f"| {middle / cells * 1e3:.1f} ms | {cpu / cells * 1e3:.1f} ms |"
        )
    return "\n".join(lines)


def targets(times: Times) -> str:
    """wtb_prefect against each of them."""
    lines = ["| wtb_prefect against | measured | must reach | |", "|---|---|---|---|"]
    for target in TARGETS:
        found = ratio(times, target.against)
        met = "met" if found <= target.limit else "MISSED"
        name = WHAT[target.against].split(":")[0]
        lines.append(f"| {name} | {found:.2f} times | {target.words} | {met} |")
    return "\n".join(lines)


def write(times: Times, versions: dict[str, str], cells: int) -> None:
    """Keeps the figures beside the code that took them."""
    content = {
        "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
        "versions": versions,
        "cells": cells,
        "seconds": {name: [wall for wall, _ in found] for name, found in times.items()},
        "cpu_seconds": {name: [cpu for _, cpu in found] for name, found in times.items()},
        "ratios": {target.against: ratio(times, target.against) for target in TARGETS},
    }
    path = Path(__file__).with_name("results.json")
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
