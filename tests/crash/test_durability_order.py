"""What the ledger names is durable before the ledger says so, by the log of system calls."""

from __future__ import annotations

import pytest
from fault_points import TALLY
from syscall_log import OPTIONS, Order, order_of
from warm import Warm


def logged(warm: Warm, name: str, mutant: str | None = None) -> Order:
    warm.put_back(name)
    ended, log = warm.under_strace("run", name, options=OPTIONS, mutant=mutant)
    assert ended == 0, warm.error()
    return order_of(log)


@pytest.mark.parametrize("name", ["commit", "fork", "many"])
def test_blobs_and_checkpoints_are_durable_before_the_ledger_names_them(
    warm: Warm, name: str
) -> None:
    """`many` is enough files to sync their file system as a whole; `fork` has checkpoints only."""
    found = logged(warm, name)
    TALLY.checks[f"durability order, {name}: ledger syncs"] += found.ledger_syncs
    TALLY.violations += found.violations
    assert not found.violations, "\n".join(found.violations)
    # It looked at something: a log in which nothing is named would pass, too.
    assert found.ledger_syncs >= 2
    assert len(found.checkpoints) >= 2
    assert len(found.blobs) >= {"commit": 4, "fork": 0, "many": 200}[name]
    assert not found.unnamed


@pytest.mark.parametrize(
    "mutant", ["no fsync", "names not synced", "ledger before blobs", "checkpoints not synced"]
)
@pytest.mark.parametrize("name", ["commit", "many"])
def test_a_wrong_order_is_found(warm: Warm, name: str, mutant: str) -> None:
    found = logged(warm, name, mutant)
    assert found.violations
    TALLY.mutants[f"{mutant}, {name}"] = f"{len(found.violations)} by the order"
