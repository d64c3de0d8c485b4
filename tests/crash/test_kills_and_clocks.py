"""A kill in each node, a clock that jumps, a ledger that somebody else holds."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from contextlib import closing

import pytest
from fault_points import TALLY, WHOLE
from warm import Warm

NODES = 10


@pytest.mark.parametrize("node", range(NODES))
def test_killed_in_each_node_of_ten(warm: Warm, node: int) -> None:
    """The same state and files at the end, and one body is repeated: the one that was killed."""
    warm.clear()
    (warm.folder / "kill-at").write_text(str(node))
    assert warm.ended("run_ten") == -signal.SIGKILL
    found = warm.do("resume_ten")
    assert found["log"] == ["in", *(f"n{number}" for number in range(NODES))]
    assert found["files"] == {f"{n}.txt": f"n{n} after {n + 1}" for n in range(NODES)} | {
        "all.txt": "".join(f"n{number}\n" for number in range(NODES))
    }
    assert found["bodies"] == sorted([*range(NODES), node])
    assert found["issues"] == []
    TALLY.checks["kills inside a node, 1 body repeated each"] += 1


@pytest.mark.parametrize("hours", [-1, 24], ids=["an hour back", "a day on"])
def test_a_clock_that_jumps_between_two_runs_changes_no_end(warm: Warm, hours: int) -> None:
    """Ids of checkpoints are made from the time, and the newest is not the largest then."""
    warm.put_back("commit")
    expected = warm.do("undisturbed", "commit")
    warm.put_back("commit")
    assert warm.do("at_another_time", "commit", hours) == [expected, []]
    TALLY.checks["runs with a clock that jumps"] += 1


def test_leases_stay_right_when_the_clock_jumps(warm: Warm) -> None:
    warm.put_back("outbox")
    found = warm.do("leases_and_clocks")
    assert found["an hour back"] == 0  # a lease of somebody who lives is not taken
    assert found["now"] == 0
    assert found["after the lease"] == found["claims"]  # nor is it kept for ever
    assert found["settled by the late one"] == 0  # who lost the lease settles nothing any more
    TALLY.checks["leases over a clock that jumps"] += found["claims"]


def test_the_grace_period_stays_right_when_the_clock_jumps(warm: Warm) -> None:
    warm.put_back("commit")
    found = warm.do("grace_and_clocks")
    assert found["an hour back"] == [True, True]
    assert found["now"] == [True, True]
    assert found["23 hours on"] == [True, True]
    assert found["25 hours on"] == [True, False]  # what is named stays, what nothing names goes
    assert found["issues"] == []
    TALLY.checks["clean-ups over a clock that jumps"] += 4


STORES = {"ledger": "w.db", "checkpoints": "*checkpoints*.db"}
LONG = pytest.mark.skipif(not WHOLE, reason="31 s: WTB_CRASH=all")


@pytest.mark.parametrize("seconds", [1, 6, pytest.param(31, marks=LONG)])
@pytest.mark.parametrize("store", STORES)
def test_a_store_that_is_locked_for_a_while_loses_nothing(
    warm: Warm, store: str, seconds: int
) -> None:
    """Nobody waits for longer than 30 s; what gives up then goes on later."""
    warm.put_back("commit")
    expected = warm.do("undisturbed", "commit")
    warm.put_back("commit")
    began = time.monotonic()
    code = while_locked(warm, store, seconds)
    assert time.monotonic() - began >= seconds
    assert code == 0 or seconds > 30, warm.error()
    assert code == 0 or "locked" in str(warm.error())
    assert warm.do("judge", "commit", expected, False, code == 0) == []
    TALLY.checks[f"{store} locked for {seconds} s"] += 1


def test_a_store_that_does_not_wait_is_found(warm: Warm) -> None:
    warm.put_back("commit")
    assert while_locked(warm, "checkpoints", 1, "no patience") != 0
    assert "locked" in str(warm.error())
    TALLY.mutants["no patience"] = "gave up at once"


def while_locked(warm: Warm, store: str, seconds: float, mutant: str | None = None) -> int:
    """How the operation ends while somebody holds a store for so long."""
    (path,) = warm.folder.rglob(STORES[store])
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, connection.rollback)
        timer.start()
        code = warm.ended("run", "commit", mutant=mutant)
        timer.join()
    return code
