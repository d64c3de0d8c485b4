"""Deleting batches and pruning checkpoints: what goes is gone everywhere, what others use stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import Body, make_body
from line_project import CASES, MATRIX, project, run

from wtb_prefect import CellFilter, TestBench, WorkflowProject
from wtb_prefect.application.at_work import begin_work, end_work
from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.application.delete_batch import delete_batch, plan_deletion
from wtb_prefect.application.disk_use import read_disk_use
from wtb_prefect.application.prune_checkpoints import plan_pruning, prune_batch
from wtb_prefect.application.stores import OpenStores
from wtb_prefect.bootstrap.stores import open_stores
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.errors import BatchBusyError, CheckpointError, InvalidInputError, NotFoundError
from wtb_prefect.infrastructure.processes import is_alive, this_process
from wtb_prefect.sdk.batch_result import BatchResult

# What is said of a batch beyond its life: who did what, and contents that others may share.
LASTING = ("audit_log", "variants", "file_commits", "file_mementos", "alembic_version")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TestBench]:
    with TestBench(project(tmp_path)) as made:
        yield made


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[OpenStores]:
    """Opened without the graph, as `wtb delete` does."""
    with open_stores(project(tmp_path).locations) as made:
        yield made


def rows(folder: Path) -> dict[str, list[Any]]:
    """Every row of the ledger and of the checkpoints, by table."""
    found = {}
    for name in ("w.db", "w-checkpoints.db"):
        with closing(sqlite3.connect(folder / name)) as connection:
            query = (
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            )
            for (table,) in connection.execute(query).fetchall():
                if table not in LASTING:
                    found[table] = sorted(map(repr, connection.execute(f"SELECT * FROM {table}")))
    return found


def kept_files(folder: Path) -> set[str]:
    """Names of workspaces and logs."""
    places = [folder / "out" / "workspaces", folder / "out" / "logs"]
    return {str(p.relative_to(folder)) for place in places for p in place.rglob("*")}


def delete(batch_id: str, stores: OpenStores) -> Any:
    return delete_batch(batch_id, this_process(), is_alive, stores)


def results(bench: TestBench, batch_id: str) -> list[Any]:
    """What a user sees of a batch, the end of every cell included."""
    found = bench.results(batch_id)
    files = [bench.files(c.execution_id) for c in found.cells if c.execution_id]
    return [found.report, [dict(c.state) for c in found.cells], files]


def test_nothing_of_a_deleted_batch_is_left(tmp_path: Path, stores: OpenStores) -> None:
    """Rows, claims, threads, the workspaces of failed cells, logs."""
    with TestBench(project(tmp_path, {"c": make_body(Body("c", "x", raises=True))})) as bench:
        run(bench, cases=CASES[:1])
        before, files = rows(tmp_path), kept_files(tmp_path)
        result = run(bench, batch_id="second")
        failed = next(cell for cell in result.cells if cell.status == "failed")
        log = tmp_path / "out" / "logs" / f"{failed.execution_id}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("printed")
        assert kept_files(tmp_path) > files
        found = delete("second", stores)
    assert (found.cells, found.cases, len(found.gone), len(found.kept)) == (12, 3, 21, 0)
    after = rows(tmp_path)
    assert after == before
    assert {"cells", "outbox_events", "checkpoints", "writes"} <= after.keys()
    assert {f for f in kept_files(tmp_path) if not f.endswith("logs")} <= files | {
        "out/workspaces/.removed"
    }
    with pytest.raises(NotFoundError, match="no batch 'second'; there is: "):
        delete("second", stores)


def test_what_another_batch_stands_on_stays_until_that_goes(
    tmp_path: Path, bench: TestBench, stores: OpenStores
) -> None:
    """Adopted cells, with the trunks behind them, are the adopting batch's from then on."""
    first = run(bench, {"b": "*", "c": ["original"]})
    third = run(bench, {"b": "*", "c": ["original"]}, CASES[1:])
    assert third.plan is not None
    assert third.plan.counts[CellState.ADOPTED] == 4
    before = results(bench, third.batch_id)
    history = bench.history(str(third.cells[0].execution_id))
    found = delete(first.batch_id, stores)
    assert (len(found.gone), len(found.kept)) == (3, 6)
    assert results(bench, third.batch_id) == before
    assert bench.history(str(third.cells[0].execution_id)) == history
    assert dict(bench.state(str(third.cells[0].execution_id), history[1].checkpoint_id))["log"]
    assert run(bench, {"b": "*", "c": ["original"]}, CASES[1:]).node_executions == 0
    delete(third.batch_id, stores)
    assert not any(found for table, found in rows(tmp_path).items() if table != "workflows")


def test_a_batch_in_use_is_refused(bench: TestBench, stores: OpenStores) -> None:
    batch_id = run(bench).batch_id
    with stores.open_uow(write=True) as uow:
        uow.batch_tests.own(batch_id, this_process(), "inline", stores.clock.now())
        begin_work(batch_id, this_process())
        uow.commit()
    for act in (plan_deletion, plan_pruning):
        with pytest.raises(BatchBusyError, match="by process"):
            act(batch_id, is_alive, stores)
    with pytest.raises(BatchBusyError):
        delete(batch_id, stores)
    end_work(batch_id)
    assert bench.results(batch_id).cells[0].status == "completed"


class Dying:
    """Checkpoints of a process that ends when it begins to delete, or when it has."""

    def __init__(self, inner: Any, *, after: bool) -> None:
        self._inner = inner
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def delete_many(self, threads: list[str]) -> None:
        if self._after:
            self._inner.delete_many(threads)
        raise CheckpointError("killed")


@pytest.mark.parametrize("after", [False, True])
def test_a_deletion_that_broke_off_claims_nothing_and_is_finished(
    tmp_path: Path, bench: TestBench, stores: OpenStores, after: bool
) -> None:
    """Nobody adopts from it or runs it in between."""
    batch_id = run(bench).batch_id
    dying: Any = Dying(stores.checkpoints, after=after)
    gone = replace(this_process(), pid=2**22 + 1)
    with pytest.raises(CheckpointError):
        delete_batch(batch_id, gone, is_alive, replace(stores, checkpoints=dying))
    assert bench.results(batch_id).status == "deleting"
    assert {cell.execution_id for cell in bench.results(batch_id).cells} == {None}
    with pytest.raises(BatchBusyError, match=f"wtb delete PROJECT {batch_id}"):
        bench.batch(matrix=MATRIX, cases=CASES, runner="inline")
    plan = bench.plan(MATRIX, CASES[:1])
    assert plan.counts[CellState.NEW] == 4
    delete(batch_id, stores)
    assert not any(found for table, found in rows(tmp_path).items() if table != "workflows")
    assert run(bench).node_executions == 21


def trunk_and_leaf(result: BatchResult, bench: TestBench) -> tuple[Any, Any]:
    """A checkpoint in a trunk, and the end of a cell."""
    history = bench.history(str(result.cells[0].execution_id))
    return history[2], history[-1]


def test_pruned_results_are_read_as_before(bench: TestBench, stores: OpenStores) -> None:
    """What is gone is said when it is asked for."""
    result = run(bench)
    before = results(bench, result.batch_id)
    middle, end = trunk_and_leaf(result, bench)
    execution = str(result.cells[0].execution_id)
    assert bench.state(execution, middle.checkpoint_id)
    use = read_disk_use(bench.session.project.workflow_id, stores)
    found = prune_batch(result.batch_id, is_alive, stores)
    assert (len(found.trunks), len(found.leaves)) == (9, 12)
    less = read_disk_use(bench.session.project.workflow_id, stores)
    assert 0 < less.total.checkpoints < use.total.checkpoints / 2
    assert less.total.files == use.total.files > 0
    assert results(bench, result.batch_id) == before
    assert bench.history(execution)[2] == middle
    assert bench.files(execution, middle.checkpoint_id)
    assert bench.state(execution, end.checkpoint_id) == bench.state(execution)
    with pytest.raises(InvalidInputError, match=f"{middle.checkpoint_id} .* was pruned"):
        bench.state(execution, middle.checkpoint_id)
    assert run(bench).node_executions == 0
    assert prune_batch(result.batch_id, is_alive, stores) is not None


def test_cells_behind_a_pruned_trunk_run_from_their_start(
    bench: TestBench, stores: OpenStores
) -> None:
    """With the reason; 3 bodies each."""
    some = run(bench, cases=CASES[:1], only=CellFilter(combinations=("b=x",)))
    prune_batch(some.batch_id, is_alive, stores)
    every = run(bench, cases=CASES[:1])
    assert every.node_executions == 9
    reasons = {cell.combination: cell.unshared_reason for cell in every.cells}
    assert reasons["b=x"] is None
    assert "pruned" in str(reasons["c=x"])
    assert {c.combination: c.state["log"][1:] for c in every.cells} == {
        "baseline": ["a:original:1", "b:original:2", "c:original:3"],
        "c=x": ["a:original:1", "b:original:2", "c:x:3"],
        "b=x": ["a:original:1", "b:x:2", "c:original:3"],
        "b=x,c=x": ["a:original:1", "b:x:2", "c:x:3"],
    }


def threads_left(bench: TestBench, batch_id: str) -> list[int]:
    """Checkpoints left of each trunk, then of each leaf."""
    with bench.session.open_uow() as uow:
        found = uow.executions.list(batch_id=batch_id)
    count: Callable[[Any], int] = lambda e: len(  # noqa: E731
        bench.session.checkpoints.history(thread_id(e.execution_id))
    )
    trunks = [count(e) for e in found if e.split_nodes]
    return [*sorted(trunks), -1, *sorted(count(e) for e in found if not e.split_nodes)]


def keeping_last(folder: Path, **bodies: Any) -> WorkflowProject:
    return project(folder, bodies, keep_checkpoints="last")


def test_keeping_the_last_prunes_at_the_end_of_a_batch(tmp_path: Path) -> None:
    """a -> b -> c: three trunks and four leaves a case."""
    with TestBench(keeping_last(tmp_path)) as bench:
        result = run(bench, cases=CASES[:1])
        assert threads_left(bench, result.batch_id) == [0, 0, 0, -1, 1, 1, 1, 1]
        assert [cell.state["log"][-1][0] for cell in result.cells] == ["c"] * 4


def test_keeping_the_last_leaves_what_failed_cells_need(tmp_path: Path) -> None:
    """c=x fails: its trunks and leaves stay whole."""
    with TestBench(keeping_last(tmp_path, c=make_body(Body("c", "x", raises=True)))) as bench:
        result = run(bench, cases=CASES[:1])
        trunks, leaves = threads_left(bench, result.batch_id)[:3], [1, 1, 1, 1]
        assert min(trunks) > 0
        assert threads_left(bench, result.batch_id)[4:] == leaves
    with TestBench(keeping_last(tmp_path)) as repaired:
        run(repaired, cases=CASES[:1])


def test_an_unknown_retention_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'none'; there is: all, last"):
        project(tmp_path, keep_checkpoints="none")
