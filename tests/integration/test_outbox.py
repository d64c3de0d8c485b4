"""Claims across stores: verified when they hold, found out when they do not, whoever dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from controlled import START, Place

from wtb_prefect import TestBench
from wtb_prefect.application import roll_back as use_case
from wtb_prefect.application.delete_batch import delete_batch
from wtb_prefect.application.process_outbox import GIVEN_UP, Verification
from wtb_prefect.application.prune_checkpoints import prune_batch
from wtb_prefect.bootstrap.stores import open_stores
from wtb_prefect.domain.outbox import MAX_ATTEMPTS, OutboxMetrics
from wtb_prefect.events import ClaimFailed
from wtb_prefect.infrastructure.processes import is_alive, this_process

PROCESSOR = """
import sys, time
from wtb_prefect import TestBench
from wtb_prefect.application import process_outbox
from wtb_prefect.application.verify_claims import ClaimVerifier
from wtb_prefect.infrastructure.workflow.graph_source import load_attribute

process_outbox.LEASE_SECONDS = 2.0
check = ClaimVerifier.check
def noted(self, events):
    print(*(event.event_id for event in events), sep="\\n", flush=True)
    if sys.argv[2] == "hang":
        print("holding", flush=True)
        time.sleep(60)
    return check(self, events)
ClaimVerifier.check = noted
with TestBench(load_attribute(sys.argv[1] + ":project")) as bench:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not bench.process_pending(100).looked_at:
            with bench.session.open_uow() as uow:
                if not uow.outbox.metrics(bench.session.clock.now()).pending:
                    break
            time.sleep(0.1)
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def ledger(place: Place, statement: str, *values: Any) -> list[Any]:
    with sqlite3.connect(place.folder / "w.db", timeout=30) as connection:
        found = connection.execute(statement, values).fetchall()
    connection.close()
    return found


def checkpoints(place: Place, statement: str, *values: Any) -> None:
    path = next(place.folder.rglob("*checkpoints*.db"))
    with sqlite3.connect(path, timeout=30) as connection:
        connection.execute(statement, values)
    connection.close()


def forget(place: Place) -> None:
    """All claims are as they were written."""
    ledger(
        place,
        "UPDATE outbox_events SET status = 'PENDING', attempts = 0, next_at = NULL, "
        "lease_until = NULL, processed_at = NULL",
    )


def due_now(place: Place) -> None:
    ledger(place, "UPDATE outbox_events SET next_at = NULL")


def metrics(bench: TestBench) -> OutboxMetrics:
    with bench.session.open_uow() as uow:
        return uow.outbox.metrics(bench.session.clock.now())


def verified(bench: TestBench, place: Place, *, deep: bool = False) -> Verification:
    """All attempts that there are, without the waiting."""
    total = Verification()
    for _ in range(MAX_ATTEMPTS):
        due_now(place)
        total += bench.verify_outbox(deep=deep)
    return total


def test_a_batch_verifies_its_claims_when_it_ends(place: Place) -> None:
    with place.bench() as bench:
        bench.batch({"d": "*"}, [{"id": "q", "state": START}], runner="inline")
        found = metrics(bench)
        assert (found.pending, found.failed) == (0, 0)
        assert found.processed > 20
        forget(place)
        assert bench.verify_outbox(deep=True) == Verification(processed=found.processed)


def test_a_call_verifies_some_when_it_ends(place: Place) -> None:
    with place.bench() as bench:
        bench.run(initial_state=START)
        assert metrics(bench).pending == 0


def lose_a_checkpoint(place: Place, run: str, at: str) -> str:
    where = "WHERE thread_id = ? AND checkpoint_id = ?"
    checkpoints(place, f"DELETE FROM checkpoints {where}", f"wtb-{run}", at)
    return f"checkpoint {at} of execution {run} is not in the store"


def change_a_parent(place: Place, run: str, at: str) -> str:
    where = "WHERE thread_id = ? AND checkpoint_id = ?"
    statement = f"UPDATE checkpoints SET parent_checkpoint_id = 'other' {where}"
    checkpoints(place, statement, f"wtb-{run}", at)
    return "has the parent other in the store"


def garble_a_checkpoint(place: Place, run: str, at: str) -> str:
    where = "WHERE thread_id = ? AND checkpoint_id = ?"
    statement = f"UPDATE checkpoints SET checkpoint = x'ff00ff' {where}"
    checkpoints(place, statement, f"wtb-{run}", at)
    return f"checkpoint {at} cannot be read back"


def _blob(place: Place) -> Path:
    ((name,),) = ledger(place, "SELECT blob_id FROM file_mementos WHERE path = 'b.txt' LIMIT 1")
    found = place.folder / "out/blobs/objects" / name[:2] / name[2:]
    found.chmod(0o644)
    return found


def lose_a_blob(place: Place, run: str, at: str) -> str:
    found = _blob(place)
    found.unlink()
    return f"'b.txt' cannot be restored: blob {found.parent.name}{found.name} is missing"


def truncate_a_blob(place: Place, run: str, at: str) -> str:
    found = _blob(place)
    found.write_text("b")
    return f"blob {found.parent.name}{found.name} has 1 bytes"


def flip_a_blob(place: Place, run: str, at: str) -> str:
    found = _blob(place)
    found.write_bytes(bytes(byte ^ 1 for byte in found.read_bytes()))
    return f"blob {found.parent.name}{found.name} is damaged"


@pytest.mark.parametrize(
    ("damage", "deep"),
    [
        (lose_a_checkpoint, False),
        (change_a_parent, False),
        (garble_a_checkpoint, True),
        (lose_a_blob, False),
        (truncate_a_blob, False),
        (flip_a_blob, True),
    ],
)
def test_damage_fails_its_claims_and_no_others(
    place: Place, damage: Callable[[Place, str, str], str], deep: bool
) -> None:
    with place.bench() as bench:
        run = bench.run(initial_state=START).execution_id
        other = bench.run(initial_state={**START, "log": ["of", "other"]}).execution_id
        at = next(p.checkpoint_id for p in bench.history(run) if "b" in p.nodes)
        words = damage(place, run, at)
        forget(place)
        assert not bench.verify_outbox(deep=deep).failed  # it is tried again first
        total = verified(bench, place, deep=deep)
        assert total.failed
        assert any(words in wrong for wrong in total.failed.values()), total.failed
        assert not [claim for claim in total.failed if other in claim]
        told = bench.events.history(ClaimFailed)
        assert {event.claim_id for event in told} == set(total.failed)
        assert metrics(bench).pending == 0
        assert metrics(bench).failed == len(total.failed)
        again = bench.verify_outbox(deep=deep, retry_failed=True)
        assert (again.retried, again.failed) == (len(total.failed), {})


def test_what_was_taken_away_on_purpose_is_no_damage(place: Place) -> None:
    with place.bench() as bench:
        case = {"id": "q", "state": START}
        bench.batch({"d": "*"}, [case], runner="inline", batch_id="pruned")
        bench.batch({"d": "*"}, [case], runner="inline", batch_id="deleted")
        run = bench.run(initial_state=START).execution_id
        bench.rollback(run, node="b")
        forget(place)
        with open_stores(bench.project.locations) as stores:
            prune_batch("pruned", is_alive, stores)
            delete_batch("deleted", this_process(), is_alive, stores)
        total = verified(bench, place, deep=True)
        assert (total.failed, metrics(bench).pending) == ({}, 0)


def test_a_rollback_is_finished_for_one_that_died(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the ledger's part and the stores'."""
    with place.bench() as bench:
        held = bench.run(initial_state=START, breakpoints=["d"])
        (folder,) = (place.folder / "out/workspaces").glob("*/run-*")

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(use_case, "stores_follow", die)
            with pytest.raises(KeyboardInterrupt):
                bench.rollback(held.execution_id, node="a")
        assert (folder / "c.txt").exists()
        bench.verify_outbox()
        assert metrics(bench).pending == 1  # its lease is not over
        assert (folder / "c.txt").exists()
        ledger(place, "UPDATE outbox_events SET lease_until = NULL")
        assert bench.verify_outbox().processed == 1
        assert [path.name for path in folder.iterdir()] == ["a.txt"]
        latest = bench.session.checkpoints.latest(f"wtb-{held.execution_id}")
        assert latest is not None
        assert latest.checkpoint_id == bench.history(held.execution_id)[-1].checkpoint_id


def test_a_rollback_that_was_finished_leaves_the_folder_alone(place: Place) -> None:
    """Somebody may be at work in it since."""
    with place.bench() as bench:
        held = bench.run(initial_state=START, breakpoints=["d"])
        (folder,) = (place.folder / "out/workspaces").glob("*/run-*")
        bench.rollback(held.execution_id, node="a")
        (folder / "mine.txt").write_text("of a person")
        bench.verify_outbox()
        assert (folder / "mine.txt").exists()


def test_a_store_that_is_away_makes_no_claim_wrong(place: Place) -> None:
    """It is waited for twice as long as for a claim that is wrong; then somebody is told."""
    with place.bench() as bench:
        bench.run(initial_state=START)
        forget(place)
        total = metrics(bench).pending
        checkpoints(place, "ALTER TABLE checkpoints RENAME TO away")
        for _ in range(GIVEN_UP // MAX_ATTEMPTS - 1):
            found = verified(bench, place)
            assert (found.processed, found.failed) == (0, {})
            assert found.retried == total * MAX_ATTEMPTS
        checkpoints(place, "ALTER TABLE away RENAME TO checkpoints")
        assert verified(bench, place) == Verification(processed=total)

        forget(place)
        checkpoints(place, "ALTER TABLE checkpoints RENAME TO away")
        for _ in range(GIVEN_UP // MAX_ATTEMPTS):
            found = verified(bench, place)
        assert len(found.failed) == total
        assert all(what.startswith("it could not be checked: ") for what in found.failed.values())


def test_a_poison_claim_holds_up_no_others(place: Place) -> None:
    with place.bench() as bench:
        run = bench.run(initial_state=START).execution_id
        forget(place)
        ledger(
            place,
            "UPDATE outbox_events SET payload = '{}' WHERE sequence = "
            "(SELECT max(sequence) FROM outbox_events WHERE aggregate_id = ?)",
            run,
        )
        first = bench.verify_outbox()
        assert (first.retried, first.failed) == (1, {})
        total = verified(bench, place)
        (wrong,) = total.failed.values()
        assert "says not what it is about" in wrong


def test_two_processors_and_one_of_them_killed(place: Place) -> None:
    """2,000 claims: none is lost, none settled twice, what it held is taken over."""
    with place.bench() as bench:
        run = bench.run(initial_state=START).execution_id
        claims = ledger(place, "SELECT event_id FROM outbox_events WHERE aggregate_id = ?", run)
        forget(place)
        ledger(
            place,
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000) "
            "INSERT INTO outbox_events (event_id, type, aggregate_id, payload, created_at, status, "
            "attempts) SELECT 'copy/' || x, type, 'a' || (x % 400), payload, created_at, "
            "'PENDING', 0 FROM n, (SELECT * FROM outbox_events LIMIT 1)",
        )
        words = [sys.executable, "-c", PROCESSOR, str(place.file)]
        hanging = subprocess.Popen([*words, "hang"], stdout=subprocess.PIPE, text=True)
        assert hanging.stdout is not None
        held = []
        while (line := hanging.stdout.readline().strip()) != "holding":
            held.append(line)
        working = [
            subprocess.Popen([*words, "work"], stdout=subprocess.PIPE, text=True) for _ in "ab"
        ]
        os.kill(hanging.pid, signal.SIGKILL)
        hanging.communicate()
        killed = time.monotonic()
        seen = Counter(claim for p in working for claim in p.communicate(timeout=60)[0].split())
        assert time.monotonic() - killed < 20  # two leases of 2 s, and starting Python
        assert len(held) >= 100
        assert set(seen) >= set(held)
        assert len(seen) == 2000 + len(claims)
        assert set(seen.values()) == {1}
        found = metrics(bench)
        assert (found.pending, found.failed) == (0, 0)
        assert found.tries == {1: 2000 + len(claims) - len(held), 2: len(held)}
