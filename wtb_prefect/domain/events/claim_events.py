"""Claims across stores that do not hold."""

from __future__ import annotations

from dataclasses import dataclass

from wtb_prefect.domain.events.base import DomainEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFailed(DomainEvent):
    """A claim of the outbox is wrong, after all its attempts; `about` is its aggregate."""

    name = "claim.failed"

    claim_id: str
    kind: str
    about: str
    error: str

    @property
    def subject(self) -> str:
        return self.claim_id

    @property
    def aggregate_id(self) -> str:
        return self.about
