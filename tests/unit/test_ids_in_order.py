"""Ids of checkpoints go on from the one before, whatever the clock says."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from langgraph.checkpoint.base import id as ids

from wtb_prefect.infrastructure.checkpoints.ids_in_order import continue_after


def test_an_id_after_another_is_larger_although_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ids, "_last_v6_timestamp", None)
    before = str(ids.uuid6(clock_seq=3))
    monkeypatch.setattr(ids, "_last_v6_timestamp", None)  # another process
    earlier = SimpleNamespace(time_ns=lambda: time.time_ns() - 3_600_000_000_000)
    monkeypatch.setattr(ids, "time", earlier)
    assert str(ids.uuid6(clock_seq=4)) < before
    continue_after(before)
    after = [str(ids.uuid6(clock_seq=0)) for _ in range(3)]
    assert [before, *after] == sorted([before, *after])


def test_a_clock_that_is_right_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = str(ids.uuid6())
    last = str(ids.uuid6())
    known = ids._last_v6_timestamp
    continue_after(before)
    assert ids._last_v6_timestamp == known
    assert str(ids.uuid6()) > last


def test_an_id_of_another_kind_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ids._last_v6_timestamp
    for other in ("", "first", "0d3f4402-e1ba-457d-a101-15fa7c8300e9"):
        continue_after(other)
    assert ids._last_v6_timestamp == known
