"""One contender, one repetition: `python -m benchmarks.peers.contenders NAME CELLS FOLDER`.

Each runs the same cells of the same graph, `IN_FLIGHT` at a time, in a process of its own; prints
the seconds it took and the seconds of processor time, after a first round over a few cells that is
not counted (imports, files made, caches filled). Contenders import what they need themselves: the
peers are not installed beside wtb_prefect.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import workflows

IN_FLIGHT = 16
NODES = 5
SECONDS = 0.05
_WARM_UP = 2 * IN_FLIGHT


@dataclass
class Spent:
    """Seconds between the start of the counted round and its end, by the wall and by the CPU."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def stop(self) -> Spent:
        """What passed since this was made."""
        return Spent(time.perf_counter() - self.wall, time.process_time() - self.cpu)


def bare(folder: Path, warm_up: int, cells: int) -> Spent:
    """A loop as one writes it by hand: a semaphore, and LangGraph's own async SQLite saver."""
    return asyncio.run(_bare(folder / "bare.db", warm_up, cells))


async def _bare(path: Path, warm_up: int, cells: int) -> Spent:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    gate = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        graph = workflows.waiting_line(SECONDS, NODES).compile(checkpointer=saver)

        async def one(case: dict[str, Any], name: str) -> None:
            async with gate:
                config: Any = {"configurable": {"thread_id": f"{name}-{case['id']}"}}
                _check(await graph.ainvoke(case["state"], config, durability="sync"))

        async def all_of(count: int, name: str) -> None:
            await asyncio.gather(*(one(case, name) for case in workflows.cases(count)))

        await all_of(warm_up, "warm-up")
        began = Spent()
        await all_of(cells, "measured")
        return began.stop()


def wtb(folder: Path, warm_up: int, cells: int) -> Spent:
    """The inline runner, with its whole ledger."""
    from wtb_prefect import TestBench, WorkflowProject

    project = WorkflowProject(
        "peers",
        lambda: workflows.waiting_line(SECONDS, NODES),
        db_path=folder / "wtb.db",
        output_dir=folder / "wtb",
    )
    with TestBench(project) as bench:

        def run(count: int, name: str) -> None:
            result = bench.batch(
                cases=workflows.cases(count),
                runner="inline",
                max_parallel=IN_FLIGHT,
                batch_id=name,
            )
            done = sum(cell.status == "completed" for cell in result.cells)
            assert (done, result.node_executions) == (count, NODES * count)

        run(warm_up, "warm-up")
        began = Spent()
        run(cells, "measured")
        return began.stop()


def inspect_ai(folder: Path, warm_up: int, cells: int) -> Spent:
    """A task whose solver awaits the graph; a local log, no display, no model."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.solver import Generate, TaskState, solver

    graph = workflows.waiting_line(SECONDS, NODES).compile()

    @solver
    def awaits_graph() -> Any:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            answer = await graph.ainvoke(state.metadata["state"])
            state.output.completion = _check(answer)
            return state

        return solve

    def run(count: int) -> None:
        samples = [
            Sample(input=case["id"], id=case["id"], metadata={"state": case["state"]})
            for case in workflows.cases(count)
        ]
        task = Task(dataset=MemoryDataset(samples), solver=awaits_graph())
        (log,) = eval(
            task,
            model="mockllm/model",
            max_samples=IN_FLIGHT,
            log_dir=str(folder / "logs"),
            display="none",
        )
        assert log.status == "success"
        assert log.results is not None
        assert log.results.completed_samples == count

    run(warm_up)
    began = Spent()
    run(cells)
    return began.stop()


def pydantic_evals(folder: Path, warm_up: int, cells: int) -> Spent:
    """A dataset whose task awaits the graph; the report stays in memory."""
    from pydantic_evals import Case, Dataset

    graph = workflows.waiting_line(SECONDS, NODES).compile()

    async def awaits_graph(state: dict[str, Any]) -> str:
        return _check(await graph.ainvoke(state))

    async def run(count: int) -> None:
        dataset: Any = Dataset(
            name="peers",
            cases=[Case(name=case["id"], inputs=case["state"]) for case in workflows.cases(count)],
        )
        report = await dataset.evaluate(awaits_graph, max_concurrency=IN_FLIGHT, progress=False)
        assert (len(report.cases), len(report.failures)) == (count, 0)

    async def both() -> Spent:
        await run(warm_up)
        began = Spent()
        await run(cells)
        return began.stop()

    return asyncio.run(both())


def _check(state: dict[str, Any]) -> str:
    """The log of an answer that went through all nodes."""
    assert len(state["log"]) == NODES
    return " ".join(state["log"])


CONTENDERS: dict[str, Callable[[Path, int, int], Spent]] = {
    "bare": bare,
    "wtb": wtb,
    "inspect_ai": inspect_ai,
    "pydantic_evals": pydantic_evals,
}

if __name__ == "__main__":
    name, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    spent = CONTENDERS[name](folder, _WARM_UP, count)
    print(spent.wall, spent.cpu)
