"""What the last self-check of a batch found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wtb_prefect.domain.interfaces.outbox_repository import EVERYTHING
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork

SELF_CHECKED = "batch.self_check"
"""The action under which a self-check stands in the audit log."""


def last_self_check(uow: UnitOfWork, batch_id: str) -> Mapping[str, Any] | None:
    """What the last self-check of a batch found: `checked`, `equal` and `differences`."""
    entries = [e for e in uow.audit_log.list(batch_id, EVERYTHING) if e.action == SELF_CHECKED]
    return entries[-1].details if entries else None


def self_check_lines(found: Mapping[str, Any] | None) -> list[str]:
    """A self-check in words; nothing if there was none."""
    if found is None:
        return []
    lines = [f"self-check: {found['equal']} of {found['checked']} cells equal when run alone"]
    lines += [
        f"  {d['combination']} on {d['case_id']}, repeat {d['repeat']}: {d['where']} "
        f"(in the batch {d['execution_id'][:13]}, alone {d['alone_id'][:13]})"
        for d in found["differences"]
    ]
    if found["differences"]:
        lines.append("  nodes that draw at random (a model, a clock) differ without any fault")
    return lines
