"""Generated graphs: a shared batch is an unshared batch is plain LangGraph, at the exact cost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from generated.blueprint import Request
from generated.compare import Tally, compare
from generated.draw import requests
from hypothesis import HealthCheck, Phase, event, given, settings

EXAMPLES = int(os.environ.get("WTB_FUZZ_EXAMPLES", "0"))
"""More, random examples on demand, over all families; without it the same ones every time."""

SHAPES = frozenset({"send", "command", "defer", "retry", "handler", "timeout", "errors"})
SUBGRAPHS = frozenset(
    ("subgraph", "inner variant", "mount variant", "memory", "called", "parent command")
) | {"send", "command", "errors"}
QUESTIONS = frozenset({"questions", "questions beside", "pause", "subgraph", "inner variant"})
STATES = frozenset({"messages", "delta", "store", "context", "cache"})
LIMITS = frozenset(
    ("steps left", "last step", "recursion", "command", "errors", "questions", "questions beside")
)
MIXED = (SHAPES | SUBGRAPHS | QUESTIONS | STATES | {"recursion"}) - {"cache"}
RACING = SHAPES | SUBGRAPHS | {"errors beside"}

FAMILIES: dict[str, tuple[frozenset[str], int]] = {
    "plain": (frozenset(), 30),
    "shapes": (SHAPES, 40),
    "subgraphs": (SUBGRAPHS, 50),
    "questions": (QUESTIONS, 30),
    "states": (STATES | {"subgraph", "inner variant"}, 30),
    "limits": (LIMITS, 20),
    "limits in subgraphs": (LIMITS | {"subgraph", "inner variant"}, 10),
    "mixed": (MIXED, 30),
    "racing": (RACING, 10),
}
"""Which features a graph of the family may have, and how many graphs are run every time."""

SELDOM_COUNTED = frozenset({"states", "racing"})
"""Families with caches or racing errors: few of their graphs have an exact number of bodies."""


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: waiting for a disk proves nothing here."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_equals_unshared_at_the_cost_of_the_prefix_tree(
    memory_folder: Path, family: str
) -> None:
    """State, files, path, status, error and the number of node bodies, for every graph."""
    features, few = FAMILIES[family]
    number = few * EXAMPLES // sum(n for _, n in FAMILIES.values()) if EXAMPLES else few
    tally = Tally()

    @settings(
        max_examples=number,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(features))
    def check(request: Request) -> None:
        folder = Path(tempfile.mkdtemp(dir=memory_folder))
        try:
            reasons = compare(request, folder, memory_folder, tally)
            event(f"unshared: {sorted(reasons)}")
        finally:
            shutil.rmtree(folder)

    check()
    assert tally.shareable >= number // 4 or family in SELDOM_COUNTED
    assert tally.shared >= tally.shareable // 2
