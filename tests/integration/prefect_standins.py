"""What stands in for the graph engine: a task and flows of the shape of the real ones."""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, get_run_logger, task
from prefect.runtime import flow_run

from wtb_prefect.api.prefect_segments import (
    PrefectSegmentRunner,
    chunk_from_json,
    result_to_json,
)
from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner
from wtb_prefect.domain.interfaces.segment_runner import (
    Chunk,
    ChunkResult,
    SegmentRunner,
    WorkItem,
)
from wtb_prefect.errors import InfrastructureError

T = TypeVar("T")
ALL = ("baseline",)


def execute_item(item: WorkItem) -> None:
    """The case id says what happens, so that tests need no channel to the worker."""
    get_run_logger().info("item %s", item.case_id)
    action, _, argument = item.case_id.partition(":")
    if action == "kill":
        time.sleep(1.0)  # long enough for the Running event to leave this process
        os._exit(1)
    if action == "fail":
        raise ValueError(argument)
    if action == "unreachable":
        raise InfrastructureError(argument)
    if action == "sleep":
        time.sleep(float(argument))
    if action == "hang":
        Path(argument).touch()
        time.sleep(300)


def execute_chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    """The body of the task, as an importable function."""
    items = chunk_from_json(chunk).items
    for item in items:
        execute_item(item)
    return result_to_json(ChunkResult(node_executions=len(items)))


@task
def run_chunk(
    project: str, batch_id: str, settings: dict[str, Any], chunk: dict[str, Any]
) -> dict[str, Any]:
    """The task itself is pickled by value, so its body only calls what can be imported."""
    return execute_chunk(chunk)


async def orchestrate(runner: SegmentRunner, chunks: list[list[str]]) -> dict[str, Any]:
    """A small `run_batch`: bounded submission, results as they come."""
    waiting = [
        Chunk(
            items=tuple(
                WorkItem(case_id=case_id, repeat=0, combinations=ALL, wanted=ALL) for case_id in ids
            ),
            return_forks=False,
        )
        for ids in chunks
    ]
    report: dict[str, Any] = {"executed": 0, "lost": [], "reasons": [], "ticks": 0}
    ticker = asyncio.create_task(_tick(report))
    while waiting or runner.in_flight:
        while waiting and runner.in_flight < runner.slots:
            runner.submit(waiting.pop(0))
        result = await runner.next_result()
        report["executed"] += result.node_executions
        report["lost"] += [item.case_id for item in result.lost]
        report["reasons"] += [result.lost_reason] if result.lost_reason else []
    ticker.cancel()
    return report


async def _tick(report: dict[str, Any]) -> None:
    while True:
        await asyncio.sleep(0.05)
        report["ticks"] += 1


async def run_chunks(chunks: list[list[str]], slots: int) -> dict[str, Any]:
    """The orchestrator over this flow's task runner."""
    runner = PrefectSegmentRunner(
        run_chunk,
        parameters={"project": "standin:project", "batch_id": "b", "settings": {}},
        slots=slots,
    )
    try:
        return await orchestrate(runner, chunks)
    finally:
        runner.close()


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine from sync code, also where a loop runs in this thread already (Jupyter)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    context = contextvars.copy_context()  # the flow run, whose task runner the tasks go to
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(context.run, asyncio.run, coroutine).result()


@flow(task_runner=SegmentRayTaskRunner(num_cpus=2), persist_result=True, result_serializer="json")
def batch(chunks: list[list[str]], slots: int = 2) -> dict[str, Any]:
    """The recommended shape: a sync flow that runs the async core."""
    return {
        **run_async(run_chunks(chunks, slots)),
        "flow_run_id": str(flow_run.id),
    }


@flow(task_runner=SegmentRayTaskRunner(num_cpus=2), persist_result=True, result_serializer="json")
async def async_batch(chunks: list[list[str]], slots: int = 2) -> dict[str, Any]:
    """The other shape, to compare."""
    return {
        **await run_chunks(chunks, slots),
        "flow_run_id": str(flow_run.id),
    }
