"""A database server that is killed again and again under a batch of 200 cells: exact results."""

from __future__ import annotations

import operator
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from tests.postgres_server import PostgresServer
from wtb_prefect import TestBench, WorkflowProject, current_workspace
from wtb_prefect.errors import InfrastructureError

RUNS = 20 if os.environ.get("WTB_CRASH") == "all" else 3
CASES = [{"id": f"c{number}", "state": {"log": []}} for number in range(100)]
PARALLEL = 4
BODIES: Counter[str] = Counter()


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def node(name: str, variant: str = "") -> Any:
    async def body(state: State) -> dict[str, list[str]]:
        BODIES[name + variant] += 1
        (current_workspace() / f"{name}.txt").write_text(f"{name}{variant} {len(state['log'])}")
        return {"log": [name + variant]}

    return body


def build() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    for name in "abc":
        builder.add_node(name, node(name))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    return builder


def answers(bench: TestBench) -> dict[tuple[str, str], Any]:
    """State, path and files of every cell."""
    found = {}
    for cell in bench.results("b").cells:
        assert cell.status == "completed", cell.error
        known = str(cell.execution_id)
        found[cell.combination, cell.case_id] = (
            tuple(cell.state["log"]),
            tuple(sorted((path, m.blob_id) for path, m in bench.files(known).items())),
            tuple(tuple(point.nodes) for point in bench.history(known)),
        )
    return found


def project(folder: Path, url: str) -> WorkflowProject:
    made = WorkflowProject("restarts", build, database_url=url, output_dir=folder / "out")
    made.variant("c", "v", node("c", "!"))
    return made


@pytest.mark.timeout(280)
@pytest.mark.parametrize("number", range(RUNS))
def test_exact_results_whatever_is_restarted_when(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str, number: int
) -> None:
    chance = random.Random(number)
    over = threading.Event()
    restarts = 0

    def monkey() -> None:
        nonlocal restarts
        while not over.wait(chance.uniform(0.3, 2.0)):
            postgres.stop()
            time.sleep(chance.uniform(0, 0.5))
            postgres.start()
            restarts += 1

    BODIES.clear()
    killing = threading.Thread(target=monkey)
    with TestBench(project(tmp_path, postgres_url)) as bench:
        bench.session  # noqa: B018 - opens the stores before the first kill
        killing.start()
        failures = 0
        try:
            while True:
                try:
                    result = bench.batch(
                        {"c": "*"},
                        CASES,
                        runner="inline",
                        max_parallel=PARALLEL,
                        batch_id="b",
                    )
                    break
                except InfrastructureError:
                    failures += 1
                    assert failures < 100
                    time.sleep(0.3)  # as somebody would who calls it again
        finally:
            over.set()
            killing.join()
        assert len(result.cells) == 200
    with TestBench(project(tmp_path, postgres_url)) as bench:
        found = answers(bench)
        assert bench.check_integrity(deep=True).healthy
    assert restarts
    # One a and one b for each case, one c for each cell; and at each failure what was in flight.
    assert BODIES.total() <= 400 + (failures + restarts) * PARALLEL * 2
    for (combination, _), (log, _, path) in found.items():
        last = "c!" if combination == "c=v" else "c"
        assert (log, path) == (("a", "b", last), ((), (), ("a",), ("b",), ("c",)))
    files = {case: files for (name, case), (_, files, _) in found.items() if name == "baseline"}
    assert len(set(files.values())) == 1
