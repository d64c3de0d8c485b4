"""Stepping, rolling back and branching over generated graphs: they end as plain LangGraph does."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from generated.alone import combinations, run_alone
from generated.blueprint import Request
from generated.compare import comparable, project_of
from generated.draw import requests
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from wtb_prefect import TestBench

EXAMPLES = int(os.environ.get("WTB_FUZZ_EXAMPLES", "0"))
FEATURES = frozenset(
    [
        "send",
        "command",
        "defer",
        "messages",
        "delta",
        "store",
        "context",
        "subgraph",
        "memory",
        "called",
    ]
)


def seen(bench: TestBench, execution_id: str) -> tuple[Any, ...]:
    """(state, files, nodes of each super-step) of an execution."""
    blob = bench.session.tracker.contents
    files = {p: blob(m.blob_id).decode() for p, m in bench.files(execution_id).items()}
    steps = [sorted(point.nodes) for point in bench.history(execution_id) if point.nodes]
    return comparable(bench.state(execution_id)), files, steps


@settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(
    request=requests(FEATURES),
    steps=st.integers(0, 6),
    places=st.lists(st.integers(0, 99), min_size=1, max_size=3),
)
def test_going_back_and_on_gives_what_a_straight_run_gives(
    request: Request, steps: int, places: list[int]
) -> None:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    choices = list(combinations(request).values())[-1]
    alone = run_alone(request, choices, folder / "alone")
    assume(alone.status == "completed")  # variants may raise
    expected = comparable(alone.state), alone.files, alone.steps
    project = project_of(request, folder.name, folder / "bench")
    with TestBench(project) as bench:
        run = bench.run(initial_state=request.case()["state"], variants=choices)
        assert (run.status, run.error) == ("completed", None)
        assert seen(bench, run.execution_id) == expected
        for place in places:
            history = bench.history(run.execution_id)[1:]
            point = history[place % len(history)].checkpoint_id
            other = bench.branch(run.execution_id, point)
            assert seen(bench, other.execution_id) == expected
            run = bench.rollback(run.execution_id, point)
            for _ in range(steps):
                if run.status == "paused":
                    run = bench.step(run.execution_id)
            if run.status == "paused":
                run = bench.resume(run.execution_id)
            assert (run.status, run.error) == ("completed", None)
            assert seen(bench, run.execution_id) == expected
    shutil.rmtree(folder)
