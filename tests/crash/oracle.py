"""What must hold after a fault (I1 to I9 of docs/reliability.md), looked at by a fresh process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from bench_project import HERE, project
from operations import BLOBS, OPERATIONS, Operation, noted

from wtb_prefect import TestBench
from wtb_prefect.domain.integrity import IntegrityReport, Severity


def undisturbed(name: str) -> Any:
    """The end of an operation that nothing happens to: what `judge` compares with."""
    with TestBench(project) as bench:
        OPERATIONS[name].run(bench)
        return OPERATIONS[name].outcome(bench)


def judge(name: str, expected: Any, killed: bool, acknowledged: bool) -> list[str]:
    """What is violated: as it lies there, after repair, and when the operation has run again.

    `acknowledged`: it said that it was done (I3).
    """
    operation = OPERATIONS[name]
    (HERE / "again").touch()
    found = list(_wrong_contents("after the fault"))
    with TestBench(project) as bench:
        first = bench.check_integrity(deep=True)
        found += _unplanted(first, "after the fault", Severity.CRITICAL)
        found += operation.halfway(bench, killed)
        if acknowledged:
            found += _converged(operation, bench, expected, "although it was acknowledged")
        if first.issues:
            bench.check_integrity(repair=True, deep=True)
            found += _unplanted(bench.check_integrity(deep=True), "after repair", Severity.INFO)
        operation.run(bench)
        found += _converged(operation, bench, expected, "after the rerun")
        # No writer is left: everything that nothing names may go.
        bench.collect_garbage(0)
        bench.session.workspaces.clean_orphans(0)
    with TestBench(project) as bench:
        report = bench.check_integrity(deep=True)
        found += [f"after a clean-up: {issue}" for issue in report.issues]
        found += _converged(operation, bench, expected, "after a clean-up")
    found += _wrong_contents("at the end")
    found += [f"left at the end: {path}" for path in (BLOBS / "tmp").iterdir()]
    found += _left_in_workspaces()
    return found


def _unplanted(report: IntegrityReport, when: str, least: Severity) -> list[str]:
    """Issues of some severity and above that are not what the operation is there to put right."""
    ranks = list(Severity)
    planted = noted().get("planted", [])
    return [
        f"{when}: {issue}"
        for issue in report.issues
        if ranks.index(issue.severity) >= ranks.index(least)
        and issue.subject not in planted
        and issue.about.get("thread") not in planted
    ]


def _wrong_contents(when: str) -> Iterator[str]:
    """I1: what has a blob's name has its bytes, whoever was killed while writing it."""
    planted = noted().get("planted", [])
    for path in BLOBS.glob("??/*"):
        name = path.parent.name + path.name
        if hashlib.sha256(path.read_bytes()).hexdigest() != name and name not in planted:
            yield f"{when}: blob {name} has {path.stat().st_size} bytes that are not its own"


def _converged(operation: Operation, bench: TestBench, expected: Any, when: str) -> list[str]:
    """I9: the same end as undisturbed. Files are compared whole: no half-made one is among them."""
    try:
        found = json.loads(json.dumps(operation.outcome(bench)))  # as `expected` came here
    except Exception as exc:
        return [f"{when}: no outcome: {type(exc).__name__}: {exc}"]
    if found != expected:
        return [f"{when}: the end is another one: {_difference(found, expected)}"]
    return []


def _difference(found: Any, expected: Any) -> str:
    """The first place where they differ."""
    if type(found) is type(expected) and isinstance(found, list) and len(found) == len(expected):
        pairs = zip(found, expected, strict=True)
        return next(_difference(one, other) for one, other in pairs if one != other)
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        key = next(key for key in found if found[key] != expected[key])
        return f"{key}: {_difference(found[key], expected[key])}"
    return f"{found} instead of {expected}"


def _left_in_workspaces() -> Iterator[str]:
    """What a process left that died while it made or changed a folder went with the sweep."""
    for path in (HERE / "out").rglob(".*"):
        if path.name.startswith((".restoring", ".updating", ".replaced", ".replaying")):
            yield f"left at the end: {path}"
