"""Verifying what the ledger claims of the other stores, and writing the claims."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.control import line_of_20_steps
from benchmarks.measures import Figure
from tests.postgres_server import binaries, postgres_server
from wtb_prefect import TestBench, WorkflowProject
from wtb_prefect.application.step_records import claims_of
from wtb_prefect.domain.outbox import OutboxStatus

DURABLE = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB")
RATE = 1000.0
COST_MS = 0.1


def verification(folder: Path, quick: bool) -> list[Figure]:
    """Draining the claims of real executions again, and what claims add to a transaction."""
    return _figures_of("SQLite", {"db_path": folder / "w.db"}, folder, quick)


def verification_on_postgres(folder: Path, quick: bool) -> list[Figure]:
    """The same with ledger and checkpoints in a server that is started for it, if there is one."""
    if (programs := binaries()) is None:
        print("not measured: no PostgreSQL server is installed here", file=sys.stderr)
        return []
    with postgres_server(programs, DURABLE) as server, server.empty_database() as url:
        drained, cost = _figures_of("PostgreSQL", {"database_url": url}, folder, quick)
        trip = _round_trip_ms(url)
    measured = f"{cost.measured}; an empty statement takes {trip:.3f} ms"
    return [drained, replace(cost, measured=measured, raw={**cost.raw, "round_trip_ms": trip})]


def _round_trip_ms(url: str) -> float:
    """The median of a statement that does nothing: less than that, no further statement costs."""
    import psycopg

    taken = []
    with psycopg.connect(url) as connection:
        for _ in range(1000):
            began = time.perf_counter()
            connection.execute("SELECT 1")
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def _figures_of(name: str, where: dict[str, Any], folder: Path, quick: bool) -> list[Figure]:
    project = WorkflowProject("line", line_of_20_steps, output_dir=folder / "out", **where)
    with TestBench(project) as bench:
        for _ in range(10 if quick else 200):
            bench.run(initial_state={"text": "x" * 2048, "count": 0})
        return [_drained(bench, name), _cost(bench, name, 100 if quick else 1000)]


def _drained(bench: TestBench, name: str) -> Figure:
    with bench.session.open_uow(write=True) as uow:
        claims = uow.outbox.list(limit=1_000_000)
        uow.outbox.delete([claim.event_id for claim in claims])
        again = {"status": OutboxStatus.PENDING, "attempts": 0, "processed_at": None}
        uow.outbox.add_many([replace(claim, **again) for claim in claims])  # type: ignore[arg-type]  # mypy knows no mixed dicts
        uow.commit()
    began = time.perf_counter()
    found = bench.verify_outbox()
    rate = found.processed / (time.perf_counter() - began)
    assert found.processed == len(claims), "every claim of an undisturbed run holds"
    return Figure(
        what=f"claims verified, of {len(claims):,}, {name}",
        measured=f"{rate:,.0f} a second",
        target=f"at least {RATE:,.0f} a second",
        met=rate >= RATE,
        raw={"claims_per_second": rate},
    )


def _cost(bench: TestBench, name: str, times: int) -> Figure:
    """The same transaction of a super-step with its claims and without, in turn; medians."""
    open_uow = bench.session.open_uow
    with open_uow() as uow:
        execution = uow.executions.list()[0]
        link = uow.checkpoint_files.list(execution.execution_id)[-1]
    taken: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * times):
        claimed = number % 2 == 0
        fresh = replace(link, sequence=1000 + number, checkpoint_id=f"c{number}")  # type: ignore[arg-type]  # any text
        began = time.perf_counter()
        with open_uow(write=True) as uow:
            uow.checkpoint_files.save(fresh)
            if claimed:
                uow.outbox.add_many(claims_of(fresh))
            uow.commit()
        taken[claimed].append((time.perf_counter() - began) * 1000)
    added = statistics.median(taken[True]) - statistics.median(taken[False])
    return Figure(
        what=f"what its claims add to the transaction of a super-step, median, {name}",
        measured=f"{added:.3f} ms",
        target=f"at most {COST_MS} ms",
        met=added <= COST_MS,
        raw={"added_ms": added},
    )
