"""All that the ledger says, read once: what the parts of an audit compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from wtb_prefect.application.at_work import is_at_work
from wtb_prefect.application.batch_owner import IsAlive
from wtb_prefect.domain.batch_test import BatchCell, BatchTest, StoredCase
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.execution_control import ExecutionControl
from wtb_prefect.domain.file_processing import CheckpointFileLink, FileCommit
from wtb_prefect.domain.interfaces.outbox_repository import EVERYTHING
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork, UnitOfWork
from wtb_prefect.domain.node_boundary import NodeBoundary
from wtb_prefect.domain.outbox import OutboxEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerView:
    """One moment of the ledger. `live` are executions and batches that a live process runs."""

    now: datetime
    batches: Mapping[str, BatchTest]
    cases: Mapping[str, Sequence[StoredCase]]
    cells: Sequence[BatchCell]
    executions: Mapping[str, Execution]
    controls: Mapping[str, ExecutionControl]
    links: Mapping[str, Sequence[CheckpointFileLink]]
    boundaries: Mapping[str, Sequence[NodeBoundary]]
    scores: Mapping[str, Sequence[EvaluationResult]]
    commits: Mapping[str, FileCommit]
    claims: Sequence[OutboxEvent]
    told: Mapping[str, frozenset[str]]
    workflows: frozenset[str]
    variants: Mapping[str, frozenset[tuple[str, str]]]
    live: frozenset[str]

    @staticmethod
    def read(open_uow: OpenUnitOfWork, is_alive: IsAlive, now: datetime) -> LedgerView:
        """Raises `LedgerError` if it cannot be read."""
        with open_uow() as uow:
            return _read(uow, is_alive, now)

    def is_live(self, execution: Execution) -> bool:
        """Whether somebody may be at work on it right now."""
        return execution.execution_id in self.live or execution.batch_id in self.live

    def line(self, execution: Execution) -> list[Execution]:
        """The execution and its ancestors, as far as they are there."""
        found = [execution]
        while (lineage := found[-1].lineage) and lineage.parent_id in self.executions:
            found.append(self.executions[lineage.parent_id])
        return found


def _read(uow: UnitOfWork, is_alive: IsAlive, now: datetime) -> LedgerView:
    executions = {e.execution_id: e for e in uow.executions.list()}
    batches = {batch.batch_id: batch for batch in uow.batch_tests.list()}
    ids = list(executions)
    workflows = {batch.workflow_id for batch in batches.values()}
    # Also those whose own row is gone.
    named = sorted({*batches, *(e.batch_id for e in executions.values() if e.batch_id)})
    found = ((known, uow.execution_controls.get(known)) for known in ids)
    controls = {known: control for known, control in found if control is not None}
    owners = {b.batch_id: b.owner for b in batches.values()}
    owners |= {known: control.owner for known, control in controls.items()}
    live = {
        known
        for known, owner in owners.items()
        if owner is not None and is_at_work(owner, known, is_alive)
    }
    told: dict[str, set[str]] = {}
    for entry in uow.audit_log.list(limit=EVERYTHING):
        told.setdefault(entry.subject, set()).add(entry.action)
    commits = ((name, uow.file_commits.get(name)) for name in uow.file_commits.parents())
    return LedgerView(
        now=now,
        batches=batches,
        cases={known: uow.cases.list(known) for known in named},
        cells=[cell for known in named for cell in uow.cells.list(known)],
        executions=executions,
        controls=controls,
        links=uow.checkpoint_files.list_many(ids),
        boundaries=uow.node_boundaries.list_many(ids),
        scores=uow.evaluation_results.list_many(ids),
        commits={name: commit for name, commit in commits if commit is not None},
        claims=uow.outbox.list(limit=EVERYTHING),
        told={subject: frozenset(actions) for subject, actions in told.items()},
        workflows=frozenset(workflow.workflow_id for workflow in uow.workflows.list()),
        variants={
            known: frozenset((v.node, v.name) for v in uow.variants.list(known))
            for known in workflows
        },
        live=frozenset(live),
    )
