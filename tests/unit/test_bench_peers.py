"""The comparison with peers compares the same graph library, and says what it found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as peers

ROOT = Path(__file__).parents[2]


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), re.MULTILINE))


def test_the_graph_library_has_the_version_this_project_is_tested_with() -> None:
    ours, theirs = pins(ROOT / "constraints.txt"), pins(ROOT / "benchmarks/peers/requirements.txt")
    shared = [
        name for name in ours if name.startswith(("langgraph", "langchain")) and name in theirs
    ]
    assert {"langgraph", "langgraph-checkpoint", "langgraph-checkpoint-sqlite"} <= set(shared)
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


def test_every_line_is_a_pinned_version_without_an_address() -> None:
    lines = (ROOT / "benchmarks/peers/requirements.txt").read_text().splitlines()
    assert [x for x in lines if not re.fullmatch(r"[\w.-]+==[\w.+]+|#.*", x)] == []


@pytest.mark.parametrize(
    ("ours", "met"), [(1.29, ["met"] * 3), (1.31, ["MISSED", "met", "MISSED"])]
)
def test_medians_are_compared_with_the_targets(ours: float, met: list[str]) -> None:
    times = {name: [(1.0, 0.1)] * 3 for name in peers.WHAT}
    times["inspect_ai"] = [(2.0, 0.1)] * 3
    times["wtb"] = [(9.0, 0.1), (ours, 0.1), (0.1, 0.1)]
    rows = peers.targets(times).splitlines()[2:]
    assert [row.split("|")[4].strip() for row in rows] == met
