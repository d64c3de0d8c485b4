"""Verifying claims of the outbox: taken under a lease, checked, and settled."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from wtb_prefect.application.session import Session
from wtb_prefect.application.verify_claims import ClaimVerifier
from wtb_prefect.domain.events import ClaimFailed
from wtb_prefect.domain.outbox import (
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    OutboxEvent,
    OutboxStatus,
    seconds_to_wait,
)
from wtb_prefect.errors import InfrastructureError

BATCH = 2000
"""Claims under one lease: they are checked in less than a second, far from its end."""

GIVEN_UP = 2 * MAX_ATTEMPTS
"""After so many attempts without an end its processors have died of it, or a store was away."""

KEPT_DAYS = 7.0
"""For how long processed claims can be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What became of claims. `processed` hold, or are void; `retried` are tried again later;
    `failed` are wrong for good: claim -> what is wrong."""

    processed: int = 0
    retried: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def looked_at(self) -> int:
        """All of them."""
        return self.processed + self.retried + len(self.failed)

    def __add__(self, other: Verification) -> Verification:
        return Verification(
            processed=self.processed + other.processed,
            retried=self.retried + other.retried,
            failed={**self.failed, **other.failed},
        )


def process_pending(session: Session, limit: int = BATCH, *, deep: bool = False) -> Verification:
    """Verifies at most `limit` claims that are due (those of the last aggregate all of them).

    Several processes may do so at once: a claim is under a lease, and nobody else's until it ends.
    """
    now = session.clock.now()
    with session.open_uow(write=True) as uow:
        claimed = uow.outbox.claim(limit, now, now + timedelta(seconds=LEASE_SECONDS))
        uow.commit()
    if not claimed:
        return Verification()
    wrong = _check(claimed, session, deep=deep)
    settled = [_settled(event, wrong[event.event_id], session) for event in claimed]
    with session.open_uow(write=True) as uow:
        uow.outbox.settle(settled)
        for event in settled:
            if event.status is OutboxStatus.FAILED:
                uow.record(_failure(event), "process_outbox")
        uow.commit()
    return Verification(
        processed=sum(event.status is OutboxStatus.PROCESSED for event in settled),
        retried=sum(event.status is OutboxStatus.PENDING for event in settled),
        failed={
            event.event_id: str(event.last_error)
            for event in settled
            if event.status is OutboxStatus.FAILED
        },
    )


def drain(session: Session, seconds: float, *, deep: bool = False) -> Verification:
    """Verifies what is due, one lease after the other, until nothing is or the time is over.

    Removes old processed claims, too.
    """
    end = session.clock.elapsed() + seconds
    total = Verification()
    while (found := process_pending(session, deep=deep)).looked_at:
        total += found
        if session.clock.elapsed() >= end:
            break
    with session.open_uow(write=True) as uow:
        uow.outbox.prune(session.clock.now() - timedelta(days=KEPT_DAYS))
        uow.commit()
    return total


def retry_failed(session: Session) -> int:
    """Makes claims that have failed pending again; answers how many."""
    with session.open_uow(write=True) as uow:
        count = uow.outbox.retry_failed()
        uow.commit()
    return count


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with a claim, and after how many attempts it is wrong for good."""

    what: str
    attempts: int = MAX_ATTEMPTS


def _check(
    events: Sequence[OutboxEvent], session: Session, *, deep: bool
) -> dict[str, _Fault | None]:
    verifier = ClaimVerifier(session, deep)
    try:
        return _faults(verifier, events)
    except InfrastructureError as exc:
        # A store is away, or one claim of them all cannot even be looked at: each for itself.
        return {event.event_id: _check_alone(event, verifier, exc) for event in events}


def _check_alone(
    event: OutboxEvent, verifier: ClaimVerifier, outage: InfrastructureError
) -> _Fault | None:
    try:
        return _faults(verifier, [event])[event.event_id]
    except InfrastructureError as exc:
        return _Fault(f"it could not be checked: {exc or outage}", GIVEN_UP)


def _faults(verifier: ClaimVerifier, events: Sequence[OutboxEvent]) -> dict[str, _Fault | None]:
    wrong = verifier.check(events)
    return {known: None if what is None else _Fault(what) for known, what in wrong.items()}


def _settled(event: OutboxEvent, fault: _Fault | None, session: Session) -> OutboxEvent:
    now = session.clock.now()
    if fault is None:
        return replace(
            event, status=OutboxStatus.PROCESSED, processed_at=now, next_at=None, last_error=None
        )
    wrong = session.surroundings.mask(fault.what)
    if event.attempts >= fault.attempts:
        return replace(event, status=OutboxStatus.FAILED, next_at=None, last_error=wrong)
    seconds = seconds_to_wait(min(event.attempts, MAX_ATTEMPTS), random.random())  # noqa: S311 - jitter
    return replace(event, next_at=now + timedelta(seconds=seconds), last_error=wrong)


def _failure(event: OutboxEvent) -> ClaimFailed:
    assert event.lease_until is not None, "it was claimed"
    return ClaimFailed(
        at=event.lease_until,
        claim_id=event.event_id,
        kind=event.type.value,
        about=event.aggregate_id,
        error=str(event.last_error),
    )
