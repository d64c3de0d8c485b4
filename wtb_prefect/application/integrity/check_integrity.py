"""The audit: everything the ledger says against everything the stores have, both ways."""

from __future__ import annotations

from collections.abc import Iterator

from wtb_prefect.application.integrity.audit_stores import AuditStores
from wtb_prefect.application.integrity.check_checkpoints import check_checkpoints
from wtb_prefect.application.integrity.check_claims import check_claims
from wtb_prefect.application.integrity.check_files import check_files
from wtb_prefect.application.integrity.check_ledger import check_ledger
from wtb_prefect.application.integrity.ledger_view import LedgerView
from wtb_prefect.application.integrity.repair import repair_all
from wtb_prefect.domain.integrity import IntegrityIssue, IntegrityReport


def check_integrity(
    stores: AuditStores, *, deep: bool = False, repair: bool = False
) -> IntegrityReport:
    """Finds what is wrong; with `repair`, does about each issue what its action says.

    Somebody may be at work meanwhile: only what is found twice is an issue. `deep` also reads
    every checkpoint and all contents of files. Repairing twice is repairing once; nothing is
    removed that is the last good copy of something the ledger names.

    Raises `InfrastructureError`: a store cannot be read.
    """
    view, found = _look(stores, deep=deep)
    if found:
        again = {issue.key for issue in _look(stores, deep=deep)[1]}
        found = [issue for issue in found if issue.key in again]
    if repair and found:
        found = repair_all(found, stores)
    return IntegrityReport(
        at=stores.clock.now(), deep=deep, checked=_counts(view), issues=tuple(found)
    )


def _look(stores: AuditStores, *, deep: bool) -> tuple[LedgerView, list[IntegrityIssue]]:
    view = LedgerView.read(stores.open_uow, stores.is_alive, stores.clock.now())
    return view, list({issue.key: issue for issue in _issues(view, stores, deep=deep)}.values())


def _issues(view: LedgerView, stores: AuditStores, *, deep: bool) -> Iterator[IntegrityIssue]:
    yield from check_ledger(view)
    yield from check_claims(view)
    yield from check_checkpoints(view, stores.checkpoints, deep=deep)
    yield from check_files(view, stores, deep=deep)


def _counts(view: LedgerView) -> dict[str, int]:
    return {
        "batches": len(view.batches),
        "cells": len(view.cells),
        "executions": len(view.executions),
        "checkpoints": sum(len(links) for links in view.links.values()),
        "visits": sum(len(visits) for visits in view.boundaries.values()),
        "file commits": len(view.commits),
        "claims": len(view.claims),
    }
