"""Listening to what happens, from several threads and from within handlers."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

import pytest

from wtb_prefect.events import BatchStarted, DomainEvent, VariantCompleted, WorkspaceCleanedUp
from wtb_prefect.infrastructure.events.event_bus import EventBus

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def variant(name: str) -> VariantCompleted:
    return VariantCompleted(at=NOW, batch_id="b", combination=name, cells={"completed": 1})


STARTED = BatchStarted(at=NOW, batch_id="b", project="p", runner="inline", cells=2)


class TestEventBus:
    def test_handlers_get_their_class_and_those_below(self) -> None:
        bus, one, all_of_them = EventBus(), [], []
        bus.subscribe(VariantCompleted, one.append)
        bus.subscribe(DomainEvent, all_of_them.append)
        bus.publish(STARTED)
        bus.publish(variant("a"))
        assert one == [variant("a")]
        assert all_of_them == [STARTED, variant("a")]

    def test_unsubscribing_ends_it(self) -> None:
        bus, found = EventBus(), []
        end = bus.subscribe(DomainEvent, found.append)
        bus.publish(STARTED)
        end()
        end()
        bus.publish(variant("a"))
        assert found == [STARTED]

    def test_history_is_bounded_and_by_class(self) -> None:
        bus = EventBus()
        bus.publish(STARTED)
        for number in range(1000):
            bus.publish(variant(str(number)))
        assert len(bus.history(DomainEvent)) == 1000
        assert bus.history(BatchStarted) == []
        assert bus.history(VariantCompleted)[0] == variant("0")

    def test_what_a_handler_publishes_comes_after_its_event_for_everybody(self) -> None:
        bus = EventBus()
        seen: list[str] = []

        def nested(event: VariantCompleted) -> None:
            if event.combination == "a":
                bus.publish(variant("b"))
                seen.append("said")

        bus.subscribe(VariantCompleted, nested)
        bus.subscribe(VariantCompleted, lambda event: seen.append(event.combination))
        bus.publish(variant("a"))
        assert seen == ["said", "a", "b"]
        assert [event.combination for event in bus.history(VariantCompleted)] == ["a", "b"]

    def test_a_handler_may_subscribe_and_unsubscribe(self) -> None:
        bus, late = EventBus(), []

        def once(event: DomainEvent) -> None:
            end()
            bus.subscribe(DomainEvent, late.append)

        end = bus.subscribe(DomainEvent, once)
        bus.publish(STARTED)
        bus.publish(variant("a"))
        assert late == [variant("a")]

    def test_a_failing_handler_is_logged_and_stops_nobody(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bus, found = EventBus(), []

        def fail(event: DomainEvent) -> None:
            raise ValueError("of mine")

        bus.subscribe(DomainEvent, fail)
        bus.subscribe(DomainEvent, found.append)
        with caplog.at_level(logging.ERROR):
            bus.publish(STARTED)
        assert found == [STARTED]
        assert "batch.started" in caplog.text
        assert "of mine" in caplog.text

    def test_nothing_is_lost_between_threads(self) -> None:
        bus = EventBus(size=8000)
        found: list[DomainEvent] = []
        answers: list[DomainEvent] = []
        bus.subscribe(VariantCompleted, found.append)
        bus.subscribe(BatchStarted, answers.append)
        bus.subscribe(VariantCompleted, lambda _: bus.publish(STARTED))

        def publish(thread: int) -> None:
            for number in range(500):
                bus.publish(variant(f"{thread}-{number}"))

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == len(answers) == 4000
        assert len(bus.history(DomainEvent)) == 8000
        for number in range(8):  # each thread's own are in order
            mine = [e.combination for e in bus.history(VariantCompleted)]
            mine = [name for name in mine if name.startswith(f"{number}-")]
            assert mine == [f"{number}-{n}" for n in range(500)]


class TestEvents:
    def test_the_id_is_made_from_the_content(self) -> None:
        assert variant("a").event_id == variant("a").event_id
        assert variant("a").event_id != variant("b").event_id

    def test_details_are_json_values_without_the_time(self) -> None:
        assert variant("a").details() == {
            "batch_id": "b",
            "combination": "a",
            "cells": {"completed": 1},
        }

    def test_an_orphan_is_named_by_its_folder(self) -> None:
        gone = WorkspaceCleanedUp(at=NOW, path="/w/a=b/case-0-1f", orphaned=True)
        assert (gone.subject, gone.aggregate_id) == ("case-0-1f", "/w/a=b/case-0-1f")
