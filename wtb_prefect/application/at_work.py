"""What this process is running right now.

A row that names its owner outlives the work if the ledger is away when that ends: a process that
lives on, a notebook, would then be told for ever that it is busy with the batch itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from wtb_prefect.domain.batch_test import Owner

_ours: set[Owner] = set()
_running: set[str] = set()


def begin_work(key: str, owner: Owner) -> None:
    """Notes that this process, `owner`, runs a batch or an execution.

    To be called in the transaction that claims it, before its commit: whoever reads the claim in
    this process then knows that it is meant.
    """
    _ours.add(owner)
    _running.add(key)


def end_work(key: str) -> None:
    """Whatever the ledger says now, this process runs it no more."""
    _running.discard(key)


def is_at_work(owner: Owner, key: str, is_alive: Callable[[Owner], bool]) -> bool:
    """Whether the owner that a row names still works on it."""
    return key in _running if owner in _ours else is_alive(owner)


def _forget() -> None:
    _ours.clear()
    _running.clear()


# A child that was forked is another process, and runs nothing of its parent's.
os.register_at_fork(after_in_child=_forget)
