"""Killed, or told of a full or broken disk, at every system call that changes a store; or told
that there are no more descriptors, at every one that opens a file of it."""

from __future__ import annotations

import time
from functools import cache

import pytest
from fault_points import (
    KINDS,
    OPENS,
    OPERATION_NAMES,
    TALLY,
    Point,
    points_of,
    spread,
    violations_at,
)
from warm import Warm

SAMPLE = {"kill": 14, "full disk": 7, "broken disk": 7, "no descriptors": 4}


@cache
def undisturbed(warm: Warm, name: str, opens: bool) -> tuple[object, list[Point]]:
    warm.put_back(name)
    expected = warm.do("undisturbed", name)
    return expected, points_of(warm, name, opens=opens)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATION_NAMES)
def test_a_fault_anywhere_breaks_no_promise(warm: Warm, name: str, kind: str) -> None:
    expected, points = undisturbed(warm, name, kind == OPENS)
    assert len(points) > (9 if kind == OPENS else 20)
    began = time.monotonic()
    found = []
    chosen = spread(points, SAMPLE[kind])
    for point in chosen:
        wrong = violations_at(warm, name, kind, point, expected)
        print(*wrong, sep="\n", end="\n" if wrong else "", flush=True)
        found += wrong
    TALLY.violations += found
    print(f"{name}, {kind}: {len(chosen)} of {len(points)}, {time.monotonic() - began:.1f} s")
    assert not found, "\n".join(found)
    missed = [point for point in TALLY.missed if point.startswith(f"{name}, {kind}")]
    assert len(missed) <= len(chosen) // 10, missed
