"""Runs a batch on Ray and prints: Prefect task runs, slots, completed cells."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bench_ray  # type: ignore[import-not-found]  # written by the measure that starts this script
import httpx
from prefect.settings import PREFECT_API_URL

from benchmarks import workflows
from wtb_prefect import TestBench
from wtb_prefect.api.server import prefect_server

if __name__ == "__main__":
    with prefect_server(Path("prefect")) as server:
        with TestBench(bench_ray.project) as bench:
            result = bench.batch(cases=workflows.cases(int(sys.argv[1])), runner="ray")
        url = f"{PREFECT_API_URL.value()}/task_runs/count"
        runs = httpx.post(url, json={}).json()
    done = sum(cell.status == "completed" for cell in result.cells)
    print(runs, os.cpu_count(), done)
