"""What every ledger keeps, whatever it is made of."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import pytest

from tests.contracts import ledger_rows as make
from tests.contracts.ledger_rows import NOW, TEXT, later
from wtb_prefect.domain.batch_test import BatchStatus, Owner
from wtb_prefect.domain.events import BatchStarted, CheckpointCreated, DomainEvent
from wtb_prefect.domain.execution import Execution, ExecutionStatus, Lineage
from wtb_prefect.domain.execution_control import ControlRequest
from wtb_prefect.domain.file_processing import FileMemento
from wtb_prefect.domain.identifiers import BlobId, CheckpointId
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.outbox import AuditEntry, OutboxEvent, OutboxMetrics, OutboxStatus
from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.engine import open_engine
from wtb_prefect.infrastructure.database.memory import MemoryLedger
from wtb_prefect.infrastructure.database.schema import upgrade
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork

T = TypeVar("T")
MANY = 5000


ADAPTERS = ["memory", "sqlite", "postgres"]


def url_of(request: pytest.FixtureRequest, folder: Path) -> str:
    """A new ledger's."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{folder}/ledger.db"


@pytest.fixture(params=ADAPTERS)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenUnitOfWork]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    engine = open_engine(url_of(request, tmp_path))
    upgrade(engine)

    def open_uow(*, write: bool = False) -> UnitOfWork:
        return SqlAlchemyUnitOfWork(engine, write)

    yield open_uow
    engine.dispose()


class Listening:
    """A ledger, and what its units of work have told."""

    def __init__(self, url: str, *, in_memory: bool) -> None:
        self.told: list[DomainEvent] = []
        self.at_event: Callable[[DomainEvent], object] = self.told.append
        self._engine = open_engine(url)
        upgrade(self._engine)
        self._memory = MemoryLedger(self._tell) if in_memory else None

    def __call__(self, *, write: bool = False) -> UnitOfWork:
        if self._memory is not None:
            return self._memory(write=write)
        return SqlAlchemyUnitOfWork(self._engine, write, self._tell)

    def close(self) -> None:
        self._engine.dispose()

    def _tell(self, event: DomainEvent) -> None:
        self.at_event(event)


@pytest.fixture(params=ADAPTERS)
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    found = Listening(url_of(request, tmp_path), in_memory=request.param == "memory")
    yield found
    found.close()


def change(ledger: OpenUnitOfWork, *work: Callable[[UnitOfWork], object]) -> None:
    """Does the work in one committed unit."""
    with ledger(write=True) as uow:
        for one in work:
            one(uow)
        uow.commit()


def each(
    write: Callable[[UnitOfWork], Callable[[T], object]], values: Iterable[T]
) -> Callable[[UnitOfWork], None]:
    """The work of writing every value."""

    def work(uow: UnitOfWork) -> None:
        for value in values:
            write(uow)(value)

    return work


def read(ledger: OpenUnitOfWork, query: Callable[[UnitOfWork], T]) -> T:
    with ledger() as uow:
        return query(uow)


@pytest.fixture
def filled(ledger: OpenUnitOfWork) -> OpenUnitOfWork:
    """With workflow w, batch b and execution e."""
    change(
        ledger,
        lambda uow: uow.workflows.save(make.workflow()),
        lambda uow: uow.batch_tests.save(make.batch()),
        lambda uow: uow.executions.add(make.execution()),
    )
    return ledger


class TestUnitOfWork:
    def test_rolls_back_uncommitted_work_by_default(self, ledger: OpenUnitOfWork) -> None:
        with ledger(write=True) as uow:
            uow.workflows.save(make.workflow())
            assert uow.workflows.get("w") == make.workflow()
        assert read(ledger, lambda uow: uow.workflows.list()) == []

    def test_rolls_back_on_error(self, filled: OpenUnitOfWork) -> None:
        class InterruptedWorkError(Exception):
            pass

        def interrupted() -> None:
            with filled(write=True) as uow:
                uow.executions.set_status("e", ExecutionStatus.RUNNING)
                uow.outbox.add_many([make.event("1")])
                raise InterruptedWorkError

        with pytest.raises(InterruptedWorkError):
            interrupted()
        assert read(filled, lambda uow: uow.executions.get("e")) == make.execution()
        assert read(filled, lambda uow: uow.outbox.list()) == []

    def test_a_reader_sees_nothing_before_the_commit(self, ledger: OpenUnitOfWork) -> None:
        with ledger(write=True) as uow:
            uow.workflows.save(make.workflow())
            assert read(ledger, lambda other: other.workflows.get("w")) is None
            uow.commit()
        assert read(ledger, lambda uow: uow.workflows.get("w")) is not None

    def test_a_reader_keeps_seeing_what_it_began_with(self, filled: OpenUnitOfWork) -> None:
        with filled() as uow:
            before = uow.executions.get("e")
            change(filled, lambda w: w.executions.set_status("e", ExecutionStatus.CRASHED))
            assert uow.executions.get("e") == before

    def test_refuses_to_write_when_opened_for_reading(self, ledger: OpenUnitOfWork) -> None:
        with ledger() as uow, pytest.raises(LedgerError, match="write=True"):
            uow.workflows.save(make.workflow())

    def test_is_over_after_the_commit(self, ledger: OpenUnitOfWork) -> None:
        with ledger(write=True) as uow:
            uow.commit()
            with pytest.raises(LedgerError, match="not open"):
                uow.workflows.save(make.workflow())
            with pytest.raises(LedgerError, match="not open"):
                uow.commit()

    def test_is_not_open_outside_the_block(self, ledger: OpenUnitOfWork) -> None:
        uow = ledger(write=True)
        with pytest.raises(LedgerError, match="not open"):
            uow.workflows.list()
        with uow:
            pass
        with pytest.raises(LedgerError, match="not open"):
            uow.workflows.list()

    def test_rows_may_come_in_any_order_within_a_unit(self, ledger: OpenUnitOfWork) -> None:
        change(
            ledger,
            lambda uow: uow.node_boundaries.save_many([make.boundary("t")]),
            lambda uow: uow.executions.add(make.execution()),
            lambda uow: uow.workflows.save(make.workflow()),
        )
        assert read(ledger, lambda uow: uow.node_boundaries.list("e")) == [make.boundary("t")]

    def test_refuses_a_row_that_names_a_missing_one(self, ledger: OpenUnitOfWork) -> None:
        with ledger(write=True) as uow:
            uow.executions.add(make.execution(workflow_id="missing"))
            with pytest.raises(LedgerError, match="ledger failed"):
                uow.commit()
        assert read(ledger, lambda uow: uow.executions.list()) == []
        change(ledger, lambda uow: uow.workflows.save(make.workflow()))

    def test_writers_of_many_threads_wait_for_each_other(self, filled: OpenUnitOfWork) -> None:
        def count_up() -> None:
            for _ in range(20):
                with filled(write=True) as uow:
                    found = uow.executions.get("e")
                    assert found is not None
                    uow.executions.save(replace(found, input_tokens=found.input_tokens + 1))
                    uow.commit()

        threads = [threading.Thread(target=count_up) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = read(filled, lambda uow: uow.executions.get("e"))
        assert found is not None
        assert found.input_tokens == make.execution().input_tokens + 8 * 20


class TestValues:
    @pytest.mark.parametrize("text", ["\ud800 lone", "nul \0", TEXT])
    def test_a_failure_is_recorded_whatever_its_text(
        self, filled: OpenUnitOfWork, text: str
    ) -> None:
        wanted = replace(make.execution(), error=replace(make.failure(), message=text))
        change(filled, lambda uow: uow.executions.save(wanted))
        assert read(filled, lambda uow: uow.executions.get("e")) == wanted

    def test_prose_that_no_database_holds_is_escaped(self, filled: OpenUnitOfWork) -> None:
        wanted = replace(make.execution(), unshared_reason="\ud800 and \0")
        change(filled, lambda uow: uow.executions.save(wanted))
        found = read(filled, lambda uow: uow.executions.get("e"))
        assert found == replace(wanted, unshared_reason="\\ud800 and \\x00")

    def test_times_come_back_in_utc(self, filled: OpenUnitOfWork) -> None:
        tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
        change(filled, lambda uow: uow.audit_log.append(replace(make.audit("s"), at=tokyo)))
        (found,) = read(filled, lambda uow: uow.audit_log.list())
        assert found.at == NOW
        assert found.at.utcoffset() == timedelta(0)
        assert found.at.microsecond == NOW.microsecond

    def test_refuses_a_time_without_a_zone(self, ledger: OpenUnitOfWork) -> None:
        entry = replace(make.audit("s"), at=datetime(2026, 1, 1))
        with ledger(write=True) as uow, pytest.raises(LedgerError, match="time zone"):
            uow.audit_log.append(entry)

    def test_refuses_what_is_not_json(self, ledger: OpenUnitOfWork) -> None:
        with ledger(write=True) as uow, pytest.raises(LedgerError, match="JSON"):
            uow.audit_log.append(replace(make.audit("s"), details={"x": object()}))

    def test_keeps_its_own_copy_of_mappings(self, filled: OpenUnitOfWork) -> None:
        metadata = {"list": [1]}
        change(
            filled,
            lambda uow: uow.executions.save(replace(make.execution(), metadata=metadata)),
        )
        metadata["list"].append(2)
        found = read(filled, lambda uow: uow.executions.get("e"))
        assert found is not None
        assert found.metadata == {"list": [1]}


class TestWorkflows:
    def test_get_and_replace(self, ledger: OpenUnitOfWork) -> None:
        change(ledger, lambda uow: uow.workflows.save(make.workflow()))
        wanted = replace(make.workflow(), fingerprint="new", import_path=None, nodes=())
        change(ledger, lambda uow: uow.workflows.save(wanted))
        assert read(ledger, lambda uow: uow.workflows.get("w")) == wanted
        assert read(ledger, lambda uow: uow.workflows.get("unknown")) is None

    def test_list_by_name(self, ledger: OpenUnitOfWork) -> None:
        first, second = make.workflow("2", "a"), make.workflow("1", "b")
        change(ledger, each(lambda uow: uow.workflows.save, (second, first)))
        assert read(ledger, lambda uow: uow.workflows.list()) == [first, second]


class TestVariants:
    def test_list_by_node_name_and_fingerprint(self, filled: OpenUnitOfWork) -> None:
        wanted = [
            make.variant("a", "x", "1"),
            make.variant("a", "x", "2"),
            make.variant("a", "y", "0"),
            replace(make.variant("b", "x"), version=None),
        ]
        change(
            filled,
            lambda uow: uow.workflows.save(make.workflow("other")),
            lambda uow: uow.variants.save_many(reversed(wanted)),
            lambda uow: uow.variants.save_many([make.variant("a", "x", workflow_id="other")]),
        )
        assert read(filled, lambda uow: uow.variants.list("w")) == wanted
        assert read(filled, lambda uow: uow.variants.list("unknown")) == []

    def test_replace(self, filled: OpenUnitOfWork) -> None:
        moved = replace(make.variant("a", "x"), location="elsewhere.py:1")
        change(filled, lambda uow: uow.variants.save_many([make.variant("a", "x"), moved]))
        assert read(filled, lambda uow: uow.variants.list("w")) == [moved]


class TestBatchTests:
    def test_get_and_replace(self, filled: OpenUnitOfWork) -> None:
        assert read(filled, lambda uow: uow.batch_tests.get("b")) == make.batch()
        assert read(filled, lambda uow: uow.batch_tests.get("unknown")) is None
        bare = replace(make.batch(), runner=None, owner=None, started_at=None, finished_at=None)
        change(filled, lambda uow: uow.batch_tests.save(bare))
        assert read(filled, lambda uow: uow.batch_tests.get("b")) == bare

    def test_list_newest_first(self, filled: OpenUnitOfWork) -> None:
        change(
            filled,
            lambda uow: uow.workflows.save(make.workflow("v")),
            lambda uow: uow.batch_tests.save(make.batch("newest", "v", seconds=9)),
            lambda uow: uow.batch_tests.save(make.batch("oldest", seconds=-9)),
        )
        everything = read(filled, lambda uow: uow.batch_tests.list())
        assert [batch.batch_id for batch in everything] == ["newest", "b", "oldest"]
        some = read(filled, lambda uow: uow.batch_tests.list("w"))
        assert [batch.batch_id for batch in some] == ["b", "oldest"]

    def test_own_and_finish(self, filled: OpenUnitOfWork) -> None:
        owner = Owner(host="other", pid=1, started=2.5)
        change(filled, lambda uow: uow.batch_tests.own("b", owner, "threads", later(60)))
        owned = replace(
            make.batch(),
            owner=owner,
            runner="threads",
            status=BatchStatus.RUNNING,
            started_at=later(60),
            finished_at=None,
        )
        assert read(filled, lambda uow: uow.batch_tests.get("b")) == owned
        change(
            filled,
            lambda uow: uow.batch_tests.finish("b", BatchStatus.COMPLETED, 30, later(90)),
        )
        assert read(filled, lambda uow: uow.batch_tests.get("b")) == replace(
            owned,
            owner=None,
            status=BatchStatus.COMPLETED,
            finished_at=later(90),
            node_executions=make.batch().node_executions + 30,
        )

    def test_an_unknown_batch_cannot_be_owned_or_finished(self, ledger: OpenUnitOfWork) -> None:
        owner = Owner(host="h", pid=1, started=0.0)
        with ledger(write=True) as uow:
            with pytest.raises(LedgerError, match="'x'"):
                uow.batch_tests.own("x", owner, "ray", NOW)
            with pytest.raises(LedgerError, match="'x'"):
                uow.batch_tests.finish("x", BatchStatus.COMPLETED, 0, NOW)

    def test_delete_takes_cells_and_cases(self, filled: OpenUnitOfWork) -> None:
        change(
            filled,
            each(lambda uow: uow.batch_tests.save, [make.batch("b2")]),
            lambda uow: uow.cases.save_many([make.case("q1"), make.case("q1", batch_id="b2")]),
            lambda uow: uow.cells.save_many([make.cell("1"), make.cell("2", batch_id="b2")]),
            lambda uow: uow.batch_tests.delete("b"),
        )
        assert read(filled, lambda uow: [b.batch_id for b in uow.batch_tests.list()]) == ["b2"]
        for batch_id, count in (("b", 0), ("b2", 1)):
            assert len(read(filled, lambda uow, b=batch_id: uow.cells.list(b))) == count
            assert len(read(filled, lambda uow, b=batch_id: uow.cases.list(b))) == count
        change(filled, lambda uow: uow.batch_tests.delete("nothing"))

    def test_a_batch_with_executions_cannot_be_deleted(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.executions.add(make.execution("e2", batch_id="b")))
        with pytest.raises(LedgerError):
            change(filled, lambda uow: uow.batch_tests.delete("b"))
        assert read(filled, lambda uow: uow.batch_tests.get("b")) is not None


class TestCases:
    def test_list_by_position(self, filled: OpenUnitOfWork) -> None:
        wanted = [make.case("z", 0), make.case("a", 1), make.case("größe", 2)]
        change(filled, lambda uow: uow.cases.save_many(reversed(wanted)))
        assert read(filled, lambda uow: uow.cases.list("b")) == wanted
        assert read(filled, lambda uow: uow.cases.list("unknown")) == []

    def test_get_and_replace(self, filled: OpenUnitOfWork) -> None:
        wanted = replace(make.case("a"), payload=b"", encoding="json")
        change(filled, lambda uow: uow.cases.save_many([make.case("a"), wanted]))
        assert read(filled, lambda uow: uow.cases.get("b", "a")) == wanted
        assert read(filled, lambda uow: uow.cases.get("b", "unknown")) is None


class TestCells:
    def test_list_by_case_repeat_and_combination(self, filled: OpenUnitOfWork) -> None:
        wanted = [
            make.cell("4", case_id="a", repeat=0, combination="x=1"),
            make.cell("3", case_id="a", repeat=0, combination="x=2"),
            make.cell("2", case_id="a", repeat=1, combination="x=1"),
            make.cell("1", case_id="b", repeat=0, combination="x=1"),
        ]
        change(filled, lambda uow: uow.cells.save_many(reversed(wanted)))
        assert read(filled, lambda uow: uow.cells.list("b")) == wanted
        assert read(filled, lambda uow: uow.cells.get("3")) == wanted[1]
        assert read(filled, lambda uow: uow.cells.get("unknown")) is None

    def test_resolve_and_count(self, filled: OpenUnitOfWork) -> None:
        cells = [make.cell(str(n), repeat=n) for n in range(3)]
        done = ExecutionStatus.COMPLETED
        change(filled, lambda uow: uow.cells.save_many(cells))
        change(filled, lambda uow: uow.cells.resolve(["0", "2", "unknown"], "e", done, "why"))
        first, last = (
            replace(one, execution_id="e", status=done, unshared_reason="why")
            for one in (cells[0], cells[2])
        )
        assert read(filled, lambda uow: uow.cells.list("b")) == [first, cells[1], last]
        counts = read(filled, lambda uow: uow.cells.count("b"))
        assert counts == {done: 2, ExecutionStatus.PENDING: 1}
        assert read(filled, lambda uow: uow.cells.count("unknown")) == {}

    def test_count_by_combination(self, filled: OpenUnitOfWork) -> None:
        cells = [make.cell(str(n), repeat=n, combination="ab"[n % 2]) for n in range(3)]
        done = ExecutionStatus.COMPLETED
        change(filled, lambda uow: uow.cells.save_many(cells))
        change(filled, lambda uow: uow.cells.resolve(["1", "2"], "e", done, None))
        counts = read(filled, lambda uow: uow.cells.count_by_combination("b"))
        assert counts == {"a": {done: 1, ExecutionStatus.PENDING: 1}, "b": {done: 1}}
        assert read(filled, lambda uow: uow.cells.count_by_combination("unknown")) == {}

    def test_replace(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.cells.save_many([make.cell("1", execution_id="e")]))
        change(filled, lambda uow: uow.cells.save_many([make.cell("1", key="new")]))
        assert read(filled, lambda uow: uow.cells.list("b")) == [make.cell("1", key="new")]

    def test_mark_stale_and_take_it_back(self, filled: OpenUnitOfWork) -> None:
        cells = [make.cell(f"c{n}", repeat=n) for n in range(3)]
        change(filled, lambda uow: uow.cells.save_many(cells))
        marks = {"c0": ("node größe",), "c1": (), "unknown": ("graph",)}
        change(filled, lambda uow: uow.cells.mark_stale(marks))
        found = read(filled, lambda uow: uow.cells.list("b"))
        assert [cell.stale for cell in found] == [("node größe",), (), cells[2].stale]
        assert [replace(cell, stale=cells[2].stale) for cell in found] == cells

    def test_list_by_executions_of_any_batch(self, filled: OpenUnitOfWork) -> None:
        cells = [
            make.cell("1", execution_id="e"),
            make.cell("2", execution_id="e", batch_id="b2"),
            make.cell("3", case_id="q3", execution_id="e2"),
            make.cell("4", case_id="q4"),
        ]
        change(
            filled,
            lambda uow: uow.batch_tests.save(make.batch("b2")),
            lambda uow: uow.executions.add(make.execution("e2")),
            lambda uow: uow.cells.save_many(cells),
        )
        ids = [f"nobody{n}" for n in range(1000)] + ["e"]
        found = read(filled, lambda uow: uow.cells.list_by_executions(ids))
        assert found == cells[:2]

    def test_find_completed_of_any_number_of_keys(self, filled: OpenUnitOfWork) -> None:
        done = ExecutionStatus.COMPLETED
        cells = [make.cell(f"{n:05}", repeat=n, key=f"k{n}", status=done) for n in range(MANY)]
        pending = make.cell("p", repeat=MANY, key="open")
        twin = make.cell("twin", repeat=MANY + 1, key="k7", status=done)
        change(filled, lambda uow: uow.cells.save_many([*cells, pending, twin]))
        keys = [f"k{n}" for n in range(MANY)]
        asked = [*keys, "open", "unknown"]
        found = read(filled, lambda uow: uow.cells.find_completed(asked))
        assert found == dict(zip(keys, cells, strict=True))
        assert read(filled, lambda uow: uow.cells.find_completed([])) == {}


class TestExecutions:
    def test_add_keeps_every_field(self, filled: OpenUnitOfWork) -> None:
        files = make.commit(make.memento("a"))
        wanted = make.execution("child", parent_id="e", batch_id="b")
        assert wanted.lineage is not None
        wanted = replace(
            wanted,
            commit_id=files.commit_id,
            lineage=replace(wanted.lineage, commit_id=files.commit_id),
        )
        change(
            filled,
            lambda uow: uow.file_commits.add(files),
            lambda uow: uow.executions.add(wanted),
        )
        assert read(filled, lambda uow: uow.executions.get("child")) == wanted
        assert read(filled, lambda uow: uow.executions.get("unknown")) is None

    def test_add_refuses_an_id_that_exists(self, filled: OpenUnitOfWork) -> None:
        with filled(write=True) as uow, pytest.raises(LedgerError):
            uow.executions.add(replace(make.execution(), step=99))
        assert read(filled, lambda uow: uow.executions.get("e")) == make.execution()

    def test_save_replaces_and_keeps_what_belongs_to_it(self, filled: OpenUnitOfWork) -> None:
        wanted = replace(
            make.execution(),
            status=ExecutionStatus.COMPLETED,
            error=None,
            head=None,
            finished_at=None,
            unshared_reason=None,
            case_id=None,
            path=(),
            metadata={},
        )
        change(filled, lambda uow: uow.node_boundaries.save_many([make.boundary("t")]))
        change(filled, lambda uow: uow.executions.save(wanted))
        assert read(filled, lambda uow: uow.executions.get("e")) == wanted
        assert read(filled, lambda uow: uow.node_boundaries.list("e")) == [make.boundary("t")]

    def test_get_many_of_any_number_of_ids(self, filled: OpenUnitOfWork) -> None:
        wanted = {f"e{n}": make.execution(f"e{n}") for n in range(MANY)}
        change(filled, each(lambda uow: uow.executions.save, wanted.values()))
        found = read(filled, lambda uow: uow.executions.get_many([*wanted, "unknown", "e1"]))
        assert found == wanted
        assert read(filled, lambda uow: uow.executions.get_many([])) == {}

    def test_list_by_creation_time_then_id(self, filled: OpenUnitOfWork) -> None:
        first = make.execution("z", seconds=-1, batch_id="b")
        twin = make.execution("a", batch_id="b")
        change(
            filled,
            lambda uow: uow.workflows.save(make.workflow("v")),
            each(lambda uow: uow.executions.add, (twin, first)),
            lambda uow: uow.executions.add(make.execution("other", workflow_id="v", seconds=9)),
        )

        def ids(batch_id: str | None = None, workflow_id: str | None = None) -> list[str]:
            found = read(
                filled,
                lambda uow: uow.executions.list(batch_id=batch_id, workflow_id=workflow_id),
            )
            return [one.execution_id for one in found]

        assert ids() == ["z", "a", "e", "other"]
        assert ids(batch_id="b") == ["z", "a"]
        assert ids(workflow_id="v") == ["other"]
        assert ids(batch_id="b", workflow_id="v") == []

    def test_total_bodies(self, filled: OpenUnitOfWork) -> None:
        runs = [make.execution(name, batch_id="b") for name in ("x", "y")]
        change(filled, each(lambda uow: uow.executions.add, runs))
        one = make.execution().node_executions
        assert read(filled, lambda uow: uow.executions.total_bodies("b")) == 2 * one
        assert read(filled, lambda uow: uow.executions.total_bodies("unknown")) == 0
        assert read(filled, lambda uow: uow.executions.count("b")) == {make.execution().status: 2}
        assert read(filled, lambda uow: uow.executions.count("unknown")) == {}

    def test_lineage_root_first(self, filled: OpenUnitOfWork) -> None:
        child = make.execution("a", parent_id="e")
        grandchild = make.execution("0", parent_id="a")
        change(filled, each(lambda uow: uow.executions.add, (child, grandchild)))
        line = read(filled, lambda uow: uow.executions.lineage("0"))
        assert line == [make.execution(), child, grandchild]
        assert read(filled, lambda uow: uow.executions.lineage("e")) == [make.execution()]
        assert read(filled, lambda uow: uow.executions.lineage("unknown")) == []

    def test_list_children_of_any_number_of_ids(self, filled: OpenUnitOfWork) -> None:
        family = [("e2", "e"), ("e3", "e"), ("e4", "e2")]
        change(
            filled,
            *(
                lambda uow, c=child, p=parent: uow.executions.add(make.execution(c, parent_id=p))
                for child, parent in family
            ),
        )
        ids = [f"nobody{n}" for n in range(1000)] + ["e"]
        found = read(filled, lambda uow: uow.executions.list_children(ids))
        assert [child.execution_id for child in found] == ["e2", "e3"]

    def test_advance_moves_the_head_and_adds_bodies(self, filled: OpenUnitOfWork) -> None:
        files = make.commit(make.memento("a"))
        change(
            filled,
            lambda uow: uow.executions.advance("e", CheckpointId("c2"), 4, files.commit_id, 2, 7),
            lambda uow: uow.file_commits.add(files),
            lambda uow: uow.executions.advance("e", CheckpointId("c3"), 5, files.commit_id, 1),
        )
        assert read(filled, lambda uow: uow.executions.get("e")) == replace(
            make.execution(),
            head=CheckpointId("c3"),
            step=5,
            commit_id=files.commit_id,
            node_executions=make.execution().node_executions + 3,
            cache_hits=make.execution().cache_hits + 7,
        )

    def test_set_answers(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.executions.set_answers("e", {"größe": 1}))
        wanted = replace(make.execution(), answers={"größe": 1})
        assert read(filled, lambda uow: uow.executions.get("e")) == wanted

    def test_set_status(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.executions.set_status("e", ExecutionStatus.PAUSED))
        wanted = replace(make.execution(), status=ExecutionStatus.PAUSED)
        assert read(filled, lambda uow: uow.executions.get("e")) == wanted

    def test_an_unknown_execution_cannot_move(self, ledger: OpenUnitOfWork) -> None:
        with ledger(write=True) as uow:
            with pytest.raises(LedgerError, match="'x'"):
                uow.executions.advance("x", CheckpointId("c"), 0, None, 0)
            with pytest.raises(LedgerError, match="'x'"):
                uow.executions.set_status("x", ExecutionStatus.PAUSED)
            with pytest.raises(LedgerError, match="'x'"):
                uow.executions.set_answers("x", {})

    def test_delete_takes_what_belongs_to_it(self, filled: OpenUnitOfWork) -> None:
        files = make.commit(make.memento("a"))
        ids = ("e", "kept")
        change(
            filled,
            lambda uow: uow.executions.add(make.execution("kept")),
            lambda uow: uow.file_commits.add(files),
            lambda uow: uow.node_boundaries.save_many(
                [make.boundary("t"), make.boundary("t", "kept")]
            ),
            each(
                lambda uow: uow.checkpoint_files.save, [make.link(0, execution_id=e) for e in ids]
            ),
            lambda uow: uow.evaluation_results.replace("e", [make.result("x", "m")]),
            lambda uow: uow.evaluation_results.replace(
                "kept", [make.result("x", "m", execution_id="kept")]
            ),
            lambda uow: uow.executions.delete("e"),
            lambda uow: uow.executions.delete("unknown"),
        )
        with filled() as uow:
            assert uow.executions.get("e") is None
            assert uow.executions.get("kept") is not None
            assert list(uow.node_boundaries.list_many(ids)) == ["kept"]
            assert uow.checkpoint_files.list("e") == []
            assert len(uow.checkpoint_files.list("kept")) == 1
            assert list(uow.evaluation_results.list_many(ids)) == ["kept"]
            assert uow.file_commits.get(files.commit_id) == files

    @pytest.mark.parametrize("holder", ["child", "cell"])
    def test_what_something_else_stands_on_cannot_be_deleted(
        self, filled: OpenUnitOfWork, holder: str
    ) -> None:
        if holder == "child":
            change(filled, lambda uow: uow.executions.add(make.execution("c", parent_id="e")))
        else:
            change(filled, lambda uow: uow.cells.save_many([make.cell("c", execution_id="e")]))
        with filled(write=True) as uow:
            uow.executions.delete("e")
            with pytest.raises(LedgerError, match="ledger failed"):
                uow.commit()
        assert read(filled, lambda uow: uow.executions.get("e")) is not None


class TestRoots:
    def test_executions_of_one_root(self, filled: OpenUnitOfWork) -> None:
        other = replace(make.execution("e3", seconds=9), root_key="another")
        change(
            filled,
            lambda uow: uow.executions.add(make.execution("e2", seconds=5)),
            lambda uow: uow.executions.add(other),
        )
        found = read(filled, lambda uow: uow.executions.list_by_root("root"))
        assert [execution.execution_id for execution in found] == ["e", "e2"]
        assert read(filled, lambda uow: uow.executions.list_by_root("none")) == []

    def test_leave_only_what_says_running(self, filled: OpenUnitOfWork) -> None:
        running = replace(make.execution("r"), status=ExecutionStatus.RUNNING)
        change(filled, lambda uow: uow.executions.add(running))
        for name, left in (("r", True), ("r", False), ("e", False), ("unknown", False)):
            with filled(write=True) as uow:
                assert uow.executions.leave(name, ExecutionStatus.PAUSED) is left
                uow.commit()
        found = read(filled, lambda uow: uow.executions.get_many(["r", "e"]))
        assert found["r"] == replace(running, status=ExecutionStatus.PAUSED)
        assert found["e"].status is ExecutionStatus.FAILED

    def test_list_those_of_a_batch_that_say_running(self, filled: OpenUnitOfWork) -> None:
        running = [
            replace(make.execution(name, batch_id="b"), status=ExecutionStatus.RUNNING)
            for name in ("r2", "r1")
        ]
        elsewhere = replace(running[0], execution_id="r3", batch_id=None)
        for one in (*running, elsewhere):
            change(filled, lambda uow, one=one: uow.executions.add(one))
        found = read(filled, lambda uow: uow.executions.list_running("b"))
        assert found == running[::-1]
        assert read(filled, lambda uow: uow.executions.list_running("unknown")) == []

    def test_whether_there_is_an_earlier_one(self, filled: OpenUnitOfWork) -> None:
        rootless = replace(make.execution("e0", seconds=-9), root_key=None)
        change(filled, lambda uow: uow.executions.add(rootless))

        def any_before(seconds: int, workflow_id: str = "w") -> bool:
            at = make.later(seconds)
            return read(filled, lambda uow: uow.executions.any_before(workflow_id, at))

        assert any_before(1)
        assert not any_before(0)
        assert not any_before(1, "another")


class TestNodeBoundaries:
    def test_list_in_the_order_recorded_which_replacing_keeps(self, filled: OpenUnitOfWork) -> None:
        tasks = ["z", "a", "m"]
        change(filled, lambda uow: uow.node_boundaries.save_many([*map(make.boundary, tasks)]))
        again = replace(make.boundary("z", step=8), error=None, calls=9)
        last = make.boundary("b")
        change(filled, lambda uow: uow.node_boundaries.save_many([again, last]))
        found = read(filled, lambda uow: uow.node_boundaries.list("e"))
        assert found == [again, make.boundary("a"), make.boundary("m"), last]
        assert read(filled, lambda uow: uow.node_boundaries.list("unknown")) == []

    def test_list_many_of_any_number_of_ids(self, filled: OpenUnitOfWork) -> None:
        other = make.boundary("t", "other")
        change(
            filled,
            lambda uow: uow.executions.add(make.execution("other")),
            lambda uow: uow.node_boundaries.save_many([make.boundary("2"), other]),
            lambda uow: uow.node_boundaries.save_many([make.boundary("1")]),
        )
        asked = [*(f"x{n}" for n in range(MANY)), "e", "other"]
        found = read(filled, lambda uow: uow.node_boundaries.list_many(asked))
        assert found == {"e": [make.boundary("2"), make.boundary("1")], "other": [other]}

    def test_set_exit(self, filled: OpenUnitOfWork) -> None:
        tasks = [make.boundary(task) for task in "abc"]
        change(filled, lambda uow: uow.node_boundaries.save_many(tasks))
        end = CheckpointId("c9")
        change(filled, lambda uow: uow.node_boundaries.set_exit("e", ["a", "c", "unknown"], end))
        found = read(filled, lambda uow: uow.node_boundaries.list("e"))
        assert [one.exit_checkpoint_id for one in found] == [end, None, end]


class TestFileCommits:
    def test_get_keeps_the_order_of_the_change(self, ledger: OpenUnitOfWork) -> None:
        link = replace(make.memento("b", "x"), mode=0o755, is_symlink=True)
        wanted = make.commit(
            make.memento("z"), link, make.memento("größe/a"), removed=("y", "größe/x")
        )
        change(ledger, lambda uow: uow.file_commits.add(wanted))
        assert read(ledger, lambda uow: uow.file_commits.get(wanted.commit_id)) == wanted
        assert read(ledger, lambda uow: uow.file_commits.get("unknown")) is None

    def test_adding_again_is_no_change(self, ledger: OpenUnitOfWork) -> None:
        wanted = make.commit(make.memento("a"), removed=("b",))
        again = replace(wanted, execution_id="another", created_at=later(9))
        change(ledger, lambda uow: uow.file_commits.add(wanted))
        change(ledger, lambda uow: uow.file_commits.add(again))
        assert read(ledger, lambda uow: uow.file_commits.get(wanted.commit_id)) == wanted

    def test_tree_is_the_sum_of_the_chain(self, ledger: OpenUnitOfWork) -> None:
        base = make.commit(make.memento("a", "1"), make.memento("b"), make.memento("c"))
        second = make.commit(make.memento("a", "2"), parent=base, removed=("b",))
        third = make.commit(make.memento("b", "3"), parent=second, removed=("c", "b"))
        branch = make.commit(make.memento("d"), parent=base)
        commits = (third, branch, second, base)
        change(ledger, each(lambda uow: uow.file_commits.add, commits))
        with ledger() as uow:
            for end, line in (
                (base, [base]),
                (second, [base, second]),
                (third, [base, second, third]),
                (branch, [base, branch]),
            ):
                tree: dict[str, FileMemento] = {}
                for one in line:
                    tree = one.apply(tree)
                assert uow.file_commits.tree(end.commit_id) == tree

    def test_blobs_of_a_batch(self, filled: OpenUnitOfWork) -> None:
        """Of its executions and of all their checkpoints, ancestors included; each once."""
        base = make.commit(make.memento("base", "12"), make.memento("same", "12"))
        middle = make.commit(make.memento("base", "345"), parent=base)
        last = make.commit(parent=middle, removed=("base", "same"))
        other = make.commit(make.memento("other", "6789"))
        ours = replace(make.execution("e2", batch_id="b"), commit_id=base.commit_id)
        theirs = replace(make.execution("e3"), commit_id=other.commit_id)
        change(
            filled,
            each(lambda uow: uow.file_commits.add, [base, middle, last, other]),
            each(lambda uow: uow.executions.add, [ours, theirs]),
            lambda uow: uow.checkpoint_files.save(
                replace(make.link(0, execution_id="e2"), commit_id=last.commit_id)
            ),
        )
        expected = {m.blob_id: m.size for m in (*base.changed, *middle.changed)}
        assert read(filled, lambda uow: uow.file_commits.blobs("b")) == expected
        assert sorted(expected.values()) == [2, 3]
        assert read(filled, lambda uow: uow.file_commits.blobs("nothing")) == {}

    def test_commits_in_use_are_those_that_rows_name(self, filled: OpenUnitOfWork) -> None:
        """By executions, where they were forked, their checkpoints, and by who made them."""
        made = [make.commit(make.memento(name)) for name in ("own", "fork", "link", "none")]
        own, fork, link, unused = made
        still_there = replace(make.commit(make.memento("made")), execution_id="e2")
        ours = replace(make.execution("e2", batch_id="b"), commit_id=own.commit_id)
        lineage = Lineage(parent_id="e2", checkpoint_id=CheckpointId("c"), commit_id=fork.commit_id)
        child = replace(make.execution("e3"), lineage=lineage, commit_id=None)
        commits = [replace(commit, execution_id="gone") for commit in made]
        change(
            filled,
            each(lambda uow: uow.file_commits.add, [*commits, still_there]),
            each(lambda uow: uow.executions.add, [ours, child]),
            lambda uow: uow.checkpoint_files.save(
                replace(make.link(0, execution_id="e2"), commit_id=link.commit_id)
            ),
        )
        used = read(filled, lambda uow: uow.file_commits.in_use())
        mine = {commit.commit_id for commit in (*made, still_there)}
        assert used & mine == mine - {unused.commit_id}

    def test_parents_and_contents_of_any_number(self, ledger: OpenUnitOfWork) -> None:
        chain = [make.commit(make.memento("first"))]
        for n in range(1000):
            chain.append(make.commit(make.memento("a", str(n)), parent=chain[-1], removed=("b",)))
        change(ledger, each(lambda uow: uow.file_commits.add, chain))
        expected = {c.commit_id: (c.parent_id, c.created_at) for c in chain}
        assert read(ledger, lambda uow: uow.file_commits.parents()) == expected
        ids = [commit.commit_id for commit in chain[1:]]
        blobs = read(ledger, lambda uow: uow.file_commits.contents([*ids, "unknown"]))
        assert blobs == {m.blob_id for commit in chain[1:] for m in commit.changed}

    def test_deleted_commits_are_gone_with_what_they_changed(self, ledger: OpenUnitOfWork) -> None:
        base = make.commit(make.memento("a", "1"))
        ends = [make.commit(make.memento("b", str(n)), parent=base) for n in range(1000)]
        change(ledger, each(lambda uow: uow.file_commits.add, [base, *ends]))
        ids = [end.commit_id for end in ends]
        change(ledger, lambda uow: uow.file_commits.delete_many([*ids, "unknown"]))
        assert set(read(ledger, lambda uow: uow.file_commits.parents())) == {base.commit_id}
        assert read(ledger, lambda uow: uow.file_commits.contents(ids)) == set()
        change(ledger, lambda uow: uow.file_commits.add(ends[0]))
        assert read(ledger, lambda uow: uow.file_commits.get(ids[0])) == ends[0]

    def test_tree_of_a_chain_longer_than_a_statement(self, ledger: OpenUnitOfWork) -> None:
        chain = [make.commit(make.memento("first"))]
        for n in range(1200):
            chain.append(make.commit(make.memento(f"{n % 50}", str(n)), parent=chain[-1]))
        change(ledger, each(lambda uow: uow.file_commits.add, chain))
        tree = read(ledger, lambda uow: uow.file_commits.tree(chain[-1].commit_id))
        assert len(tree) == 51
        assert tree["49"] == make.memento("49", "1199")

    def test_tree_of_a_broken_chain(self, ledger: OpenUnitOfWork) -> None:
        base = make.commit(make.memento("a"))
        end = make.commit(make.memento("b"), parent=base)
        loop = replace(end, commit_id="loop", parent_id="loop")
        change(ledger, each(lambda uow: uow.file_commits.add, (end, loop)))
        with ledger() as uow:
            for commit_id in (end.commit_id, "loop", "unknown"):
                with pytest.raises(LedgerError, match="cannot be told"):
                    uow.file_commits.tree(commit_id)


class TestCheckpointFiles:
    def test_list_by_sequence_and_replace(self, filled: OpenUnitOfWork) -> None:
        links = [make.link(n, f"c{n}") for n in (10, 2, 3)]
        change(filled, each(lambda uow: uow.checkpoint_files.save, links))
        again = replace(make.link(3, "c3"), pending=False, parent_checkpoint_id=None, nodes=())
        change(filled, lambda uow: uow.checkpoint_files.save(again))
        found = read(filled, lambda uow: uow.checkpoint_files.list("e"))
        assert found == [links[1], again, links[0]]
        assert read(filled, lambda uow: uow.checkpoint_files.list("unknown")) == []

    def test_list_many_of_any_number_of_ids(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.executions.add(make.execution("e2")))
        links = [make.link(n, f"c{n}", "e2") for n in (5, 1)] + [make.link(2)]
        change(filled, each(lambda uow: uow.checkpoint_files.save, links))
        asked = ["e", "e2", *(f"x{n}" for n in range(MANY))]
        found = read(filled, lambda uow: uow.checkpoint_files.list_many(asked))
        assert found == {"e": [links[2]], "e2": [links[1], links[0]]}

    def test_refuses_files_that_are_not_recorded(self, filled: OpenUnitOfWork) -> None:
        with filled(write=True) as uow:
            uow.checkpoint_files.save(replace(make.link(0), commit_id="missing"))
            with pytest.raises(LedgerError, match="ledger failed"):
                uow.commit()

    def test_store_ids(self, filled: OpenUnitOfWork) -> None:
        links = [
            replace(make.link(n), store_id=None if n == 2 else BlobId(f"store {n % 2}"))
            for n in range(4)
        ]
        change(filled, each(lambda uow: uow.checkpoint_files.save, links))
        assert read(filled, lambda uow: uow.checkpoint_files.store_ids()) >= {"store 0", "store 1"}


class TestNodeResults:
    def test_a_result_comes_back_as_it_was(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.node_results.add(make.node_result()))
        assert read(filled, lambda uow: uow.node_results.get("k")) == make.node_result()
        assert read(filled, lambda uow: uow.node_results.get("other")) is None

    def test_blobs_of_all_results(self, filled: OpenUnitOfWork) -> None:
        others = (make.memento("b", "b"), make.memento("c", "c"))
        results = [
            make.node_result(),
            replace(make.node_result("k2"), changed=others),
            replace(make.node_result("k3"), changed=()),
        ]
        change(filled, each(lambda uow: uow.node_results.add, results))
        expected = {m.blob_id for result in results for m in result.changed}
        assert read(filled, lambda uow: uow.node_results.blobs()) == expected
        assert len(expected) == 3

    def test_the_first_result_of_a_key_stays(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.node_results.add(make.node_result()))
        change(filled, lambda uow: uow.node_results.add(make.node_result(payload=b"second")))
        assert read(filled, lambda uow: uow.node_results.get("k")) == make.node_result()

    def test_forgetting_those_of_one_workflow(self, filled: OpenUnitOfWork) -> None:
        change(
            filled,
            lambda uow: uow.workflows.save(make.workflow("w2", "other")),
            lambda uow: uow.node_results.add(make.node_result("k1")),
            lambda uow: uow.node_results.add(make.node_result("k2", "w2")),
        )
        with filled(write=True) as uow:
            assert uow.node_results.delete("w") == 1
            uow.commit()
        assert read(filled, lambda uow: uow.node_results.get("k1")) is None
        assert read(filled, lambda uow: uow.node_results.get("k2")) is not None


class TestEvaluationResults:
    def test_replace_leaves_these_and_only_these(self, filled: OpenUnitOfWork) -> None:
        failed = make.result("b", "error", number=None)
        label = replace(make.result("a", "tone"), number=None, label="höflich", goal="max")
        first = [failed, make.result("a", "z", number=1.0), label]
        change(filled, lambda uow: uow.evaluation_results.replace("e", first))
        found = read(filled, lambda uow: uow.evaluation_results.list_many(["e"]))
        assert found == {"e": [label, first[1], failed]}
        second = [make.result("c", "m")]
        change(filled, lambda uow: uow.evaluation_results.replace("e", second))
        found = read(filled, lambda uow: uow.evaluation_results.list_many(["e"]))
        assert found == {"e": second}
        change(filled, lambda uow: uow.evaluation_results.replace("e", []))
        assert read(filled, lambda uow: uow.evaluation_results.list_many(["e"])) == {}

    def test_list_many_of_any_number_of_ids(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.evaluation_results.replace("e", [make.result("a", "m")]))
        asked = [*(f"x{n}" for n in range(MANY)), "e"]
        found = read(filled, lambda uow: uow.evaluation_results.list_many(asked))
        assert found == {"e": [make.result("a", "m")]}

    def test_refuses_two_results_of_one_metric(self, filled: OpenUnitOfWork) -> None:
        twice = [make.result("a", "m"), make.result("a", "m", 0.75)]
        with filled(write=True) as uow, pytest.raises(LedgerError):
            uow.evaluation_results.replace("e", twice)

    def test_refuses_a_score_that_is_no_number(self, filled: OpenUnitOfWork) -> None:
        nan = [make.result("a", "m", float("nan"))]
        with filled(write=True) as uow, pytest.raises(LedgerError, match="NaN"):
            uow.evaluation_results.replace("e", nan)


class TestOutbox:
    def test_adding_again_leaves_the_event_as_it_is(self, ledger: OpenUnitOfWork) -> None:
        first = [make.event("b"), make.event("a", OutboxStatus.FAILED)]
        change(ledger, lambda uow: uow.outbox.add_many(first))
        again = [replace(make.event("a"), payload={}), make.event("c"), make.event("c")]
        change(ledger, lambda uow: uow.outbox.add_many(again))
        assert read(ledger, lambda uow: uow.outbox.list()) == [*first, make.event("c")]

    def test_list_and_count_by_status(self, ledger: OpenUnitOfWork) -> None:
        done, waiting = OutboxStatus.PROCESSED, OutboxStatus.PENDING
        events = [make.event("1"), make.event("2", done), make.event("3"), make.event("4")]
        change(ledger, lambda uow: uow.outbox.add_many(events))
        with ledger() as uow:
            assert uow.outbox.list(waiting, limit=2) == [events[0], events[2]]
            assert uow.outbox.list(limit=3) == events[:3]
            assert uow.outbox.list(OutboxStatus.FAILED) == []
            assert uow.outbox.count() == {waiting: 3, done: 1, OutboxStatus.FAILED: 0}

    def test_delete_about_any_number_of_ids(self, ledger: OpenUnitOfWork) -> None:
        events = [replace(make.event(name), aggregate_id=name[0]) for name in ("a1", "a2", "b1")]
        ids = [f"nobody{n}" for n in range(1000)] + ["a"]
        change(
            ledger,
            lambda uow: uow.outbox.add_many(events),
            lambda uow: uow.outbox.delete_about(ids),
        )
        assert read(ledger, lambda uow: [e.event_id for e in uow.outbox.list()]) == ["b1"]

    def test_keeps_events_without_times(self, ledger: OpenUnitOfWork) -> None:
        bare = replace(
            make.event("1"), next_at=None, lease_until=None, processed_at=None, last_error=None
        )
        change(ledger, lambda uow: uow.outbox.add_many([bare]))
        assert read(ledger, lambda uow: uow.outbox.list()) == [bare]


class TestClaims:
    """Taking events to process: leases, order per aggregate, attempts."""

    LEASE = later(30)

    def put(self, ledger: OpenUnitOfWork, *names: str) -> list[OutboxEvent]:
        """Pending events that were never tried; the first letter is the aggregate."""
        events = [_untried(name) for name in names]
        change(ledger, lambda uow: uow.outbox.add_many(events))
        return events

    def take(self, ledger: OpenUnitOfWork, now: datetime = NOW, limit: int = 10) -> list[str]:
        with ledger(write=True) as uow:
            found = uow.outbox.claim(limit, now, now + timedelta(seconds=30))
            uow.commit()
        return [event.event_id for event in found]

    def test_are_taken_once_until_the_lease_is_over(self, ledger: OpenUnitOfWork) -> None:
        self.put(ledger, "a1", "b1", "a2")
        assert self.take(ledger) == ["a1", "a2", "b1"]
        assert self.take(ledger, later(29)) == []
        assert self.take(ledger, later(30)) == ["a1", "a2", "b1"]

    def test_count_their_attempts(self, ledger: OpenUnitOfWork) -> None:
        (event,) = self.put(ledger, "a1")
        with ledger(write=True) as uow:
            claimed = uow.outbox.claim(1, NOW, self.LEASE)
            uow.commit()
        assert claimed == [replace(event, attempts=1, lease_until=self.LEASE)]
        assert read(ledger, lambda uow: uow.outbox.list()) == claimed

    def test_an_aggregate_is_taken_whole(self, ledger: OpenUnitOfWork) -> None:
        self.put(ledger, "a1", "b1", "a2", "c1")
        assert self.take(ledger, limit=1) == ["a1", "a2"]
        assert self.take(ledger, limit=2) == ["b1", "c1"]

    def test_one_that_waits_holds_up_what_comes_after_it_in_its_aggregate(
        self, ledger: OpenUnitOfWork
    ) -> None:
        self.put(ledger, "a1", "a2", "b1")
        with ledger(write=True) as uow:
            first, _, other = uow.outbox.claim(10, NOW, self.LEASE)
            waiting = replace(first, next_at=later(60), last_error="not yet")
            uow.outbox.settle([waiting, other])
            uow.commit()
        assert self.take(ledger, later(1)) == ["b1"]
        assert self.take(ledger, later(60)) == ["a1", "a2", "b1"]

    def test_a_later_one_that_waits_lets_earlier_ones_through(self, ledger: OpenUnitOfWork) -> None:
        events = [_untried("a1"), replace(_untried("a2"), next_at=later(60)), _untried("a3")]
        change(ledger, lambda uow: uow.outbox.add_many(events))
        assert self.take(ledger) == ["a1"]

    def test_settled_ones_are_done(self, ledger: OpenUnitOfWork) -> None:
        self.put(ledger, "a1", "b1")
        with ledger(write=True) as uow:
            one, two = uow.outbox.claim(10, NOW, self.LEASE)
            done = replace(one, status=OutboxStatus.PROCESSED, processed_at=later(1))
            failed = replace(two, status=OutboxStatus.FAILED, last_error="größer")
            uow.outbox.settle([done, failed])
            uow.commit()
        assert read(ledger, lambda uow: uow.outbox.list()) == [
            replace(done, lease_until=None),
            replace(failed, lease_until=None),
        ]
        assert self.take(ledger, later(99)) == []

    def test_who_lost_the_lease_settles_nothing(self, ledger: OpenUnitOfWork) -> None:
        self.put(ledger, "a1")
        with ledger(write=True) as uow:
            (mine,) = uow.outbox.claim(10, NOW, self.LEASE)
            uow.commit()
        assert self.take(ledger, later(31)) == ["a1"]
        late = replace(mine, status=OutboxStatus.FAILED)
        change(ledger, lambda uow: uow.outbox.settle([late]))
        (found,) = read(ledger, lambda uow: uow.outbox.list())
        assert (found.status, found.attempts) == (OutboxStatus.PENDING, 2)

    def test_failed_ones_are_tried_again_when_asked(self, ledger: OpenUnitOfWork) -> None:
        failed = replace(make.event("a1", OutboxStatus.FAILED), attempts=5, last_error="why")
        change(ledger, lambda uow: uow.outbox.add_many([failed, _untried("b1")]))
        with ledger(write=True) as uow:
            assert uow.outbox.retry_failed() == 1
            uow.commit()
        assert self.take(ledger) == ["a1", "b1"]

    def test_old_processed_ones_go(self, ledger: OpenUnitOfWork) -> None:
        done = [
            replace(make.event(name, OutboxStatus.PROCESSED), processed_at=later(at))
            for name, at in (("a1", 0), ("b1", 10))
        ]
        change(ledger, lambda uow: uow.outbox.add_many([*done, _untried("c1")]))
        with ledger(write=True) as uow:
            assert uow.outbox.prune(later(10)) == 1
            uow.commit()
        assert read(ledger, lambda uow: [e.event_id for e in uow.outbox.list()]) == ["b1", "c1"]

    def test_metrics(self, ledger: OpenUnitOfWork) -> None:
        empty = read(ledger, lambda uow: uow.outbox.metrics(NOW))
        assert (empty.pending, empty.oldest_seconds, empty.expired) == (0, None, 0)
        self.put(ledger, "a1", "b1")
        change(
            ledger,
            lambda uow: uow.outbox.add_many([make.event("c1", OutboxStatus.FAILED)]),
            lambda uow: uow.outbox.claim(1, NOW, later(5)),
        )
        found = read(ledger, lambda uow: uow.outbox.metrics(later(7)))
        failed = make.event("c1", OutboxStatus.FAILED)
        assert found == OutboxMetrics(
            pending=2,
            processed=0,
            failed=1,
            oldest_seconds=(later(7) - _untried("a1").created_at).total_seconds(),
            tries=Counter([1, 0, failed.attempts]),
            expired=1,
        )


def _untried(name: str) -> OutboxEvent:
    event = make.event(name)
    return replace(
        event,
        aggregate_id=name[0],
        attempts=0,
        next_at=None,
        lease_until=None,
        processed_at=None,
        last_error=None,
    )


class TestAuditLog:
    def test_only_grows(self, ledger: OpenUnitOfWork) -> None:
        entries = [make.audit("b", "x"), make.audit("größe", "y"), make.audit("b", "x")]
        change(ledger, each(lambda uow: uow.audit_log.append, entries[:2]))
        change(ledger, lambda uow: uow.audit_log.append(entries[2]))
        with ledger() as uow:
            assert uow.audit_log.list() == entries
            assert uow.audit_log.list("b") == [entries[0], entries[2]]
            assert uow.audit_log.list(limit=1) == entries[:1]
            assert uow.audit_log.list("unknown") == []
            assert not [name for name in dir(uow.audit_log) if name in ("delete", "save")]


class TestRecordedEvents:
    STARTED = BatchStarted(at=NOW, batch_id="größe", project="p", runner="inline", cells=2)
    CREATED = CheckpointCreated(
        at=NOW, execution_id="e", batch_id=None, checkpoint_id="c", step=1, commit_id=None
    )

    def test_are_told_when_the_block_is_committed(self, listening: Listening) -> None:
        with listening(write=True) as uow:
            uow.record(self.STARTED, "run_batch")
            uow.record(self.CREATED, "record_steps")
            assert listening.told == []
            uow.commit()
            assert listening.told == [self.STARTED, self.CREATED]

    def test_are_lines_of_the_audit_log_unless_they_are_of_steps(
        self, listening: Listening
    ) -> None:
        def both(uow: UnitOfWork) -> None:
            uow.record(self.STARTED, "run_batch")
            uow.record(self.CREATED, "record_steps")

        change(listening, both)
        details = {"batch_id": "größe", "project": "p", "runner": "inline", "cells": 2}
        assert read(listening, lambda uow: uow.audit_log.list()) == [
            AuditEntry(
                at=NOW,
                actor="run_batch",
                action="batch.started",
                subject="größe",
                details=details,
            )
        ]

    def test_are_forgotten_with_the_block(self, listening: Listening) -> None:
        with listening(write=True) as uow:
            uow.record(self.STARTED, "run_batch")

        def fail(uow: UnitOfWork) -> None:
            uow.record(self.STARTED, "run_batch")
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            change(listening, fail)
        assert listening.told == []
        assert read(listening, lambda uow: uow.audit_log.list()) == []

    def test_a_listener_may_use_the_ledger(self, listening: Listening) -> None:
        listening.at_event = lambda _: change(
            listening, lambda uow: uow.audit_log.append(make.audit("of the listener"))
        )
        change(listening, lambda uow: uow.record(self.STARTED, "run_batch"))
        found = read(listening, lambda uow: uow.audit_log.list())
        assert [line.subject for line in found] == ["größe", "of the listener"]


def test_blob_ids_are_kept_as_given(ledger: OpenUnitOfWork) -> None:
    wanted = make.commit(replace(make.memento("a"), blob_id=BlobId("f" * 64), size=2**40))
    change(ledger, lambda uow: uow.file_commits.add(wanted))
    assert read(ledger, lambda uow: uow.file_commits.get(wanted.commit_id)) == wanted


class TestExecutionControls:
    def test_saved_found_and_asked(self, filled: OpenUnitOfWork) -> None:
        control = make.control()
        change(filled, lambda uow: uow.execution_controls.save(control))
        assert read(filled, lambda uow: uow.execution_controls.get("e")) == control
        assert read(filled, lambda uow: uow.execution_controls.asked("e")) is None
        change(filled, lambda uow: uow.execution_controls.ask("e", ControlRequest.STOP))
        assert read(filled, lambda uow: uow.execution_controls.asked("e")) is ControlRequest.STOP
        free = replace(control, owner=None, breakpoints=())
        change(filled, lambda uow: uow.execution_controls.save(free))
        assert read(filled, lambda uow: uow.execution_controls.get("e")) == free

    def test_of_an_execution_that_is_not_controlled(self, filled: OpenUnitOfWork) -> None:
        assert read(filled, lambda uow: uow.execution_controls.get("e")) is None
        assert read(filled, lambda uow: uow.execution_controls.asked("e")) is None
        with filled(write=True) as uow, pytest.raises(LedgerError, match="'e' to ask"):
            uow.execution_controls.ask("e", ControlRequest.PAUSE)

    def test_goes_with_its_execution(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.execution_controls.save(make.control()))
        change(filled, lambda uow: uow.executions.delete("e"))
        assert read(filled, lambda uow: uow.execution_controls.get("e")) is None


class TestMovingToAnotherExecution:
    """What an execution leaves behind when it is rolled back becomes another one's."""

    def test_records_and_visits(self, filled: OpenUnitOfWork) -> None:
        change(
            filled,
            lambda uow: uow.executions.add(make.execution("kept")),
            each(lambda uow: uow.checkpoint_files.save, [make.link(n, f"c{n}") for n in range(4)]),
            lambda uow: uow.node_boundaries.save_many([make.boundary(t) for t in "abcd"]),
        )
        change(
            filled,
            lambda uow: uow.checkpoint_files.move("e", [2, 3], "kept"),
            lambda uow: uow.node_boundaries.move("e", ["d", "c"], "kept"),
        )
        with filled() as uow:
            links = {e: [k.sequence for k in uow.checkpoint_files.list(e)] for e in ("e", "kept")}
            visits = {e: [v.task_id for v in uow.node_boundaries.list(e)] for e in ("e", "kept")}
            assert links == {"e": [0, 1], "kept": [2, 3]}
            assert {e: sorted(v) for e, v in visits.items()} == {
                "e": ["a", "b"],
                "kept": ["c", "d"],
            }
            assert uow.checkpoint_files.list("kept")[0].execution_id == "kept"

    def test_children_of_some_checkpoints(self, filled: OpenUnitOfWork) -> None:
        def child(name: str, checkpoint: str) -> Execution:
            lineage = Lineage(parent_id="e", checkpoint_id=CheckpointId(checkpoint), commit_id=None)
            return replace(make.execution(name), lineage=lineage)

        change(
            filled,
            each(
                lambda uow: uow.executions.add,
                [make.execution("kept"), child("x", "c1"), child("y", "c2")],
            ),
            lambda uow: uow.executions.move_children("e", ["c2", "c3"], "kept"),
        )
        with filled() as uow:
            assert [e.execution_id for e in uow.executions.list_children(["e"])] == ["x"]
            assert [e.execution_id for e in uow.executions.list_children(["kept"])] == ["y"]

    def test_claims_are_made_anew(self, filled: OpenUnitOfWork) -> None:
        change(filled, lambda uow: uow.outbox.add_many([make.event("1"), make.event("2")]))
        change(filled, lambda uow: uow.outbox.delete(["1", "unknown"]))
        assert read(filled, lambda uow: uow.outbox.list()) == [make.event("2")]
