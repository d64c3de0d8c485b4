"""Verifying claims across stores as a Prefect flow, to be scheduled."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from pydantic import Field

from wtb_prefect.api.artifacts import artifact_key, optional
from wtb_prefect.api.events import mirrored_events
from wtb_prefect.api.masked_errors import masked_errors
from wtb_prefect.application.process_outbox import Verification, drain, retry_failed
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.domain.outbox import OutboxMetrics
from wtb_prefect.domain.project import ProjectLocations


def run_name() -> str:
    """What people read in the list of runs."""
    return f"verify-outbox {flow_run.parameters.get('project')}"


@flow(
    name="verify_outbox",
    flow_run_name=run_name,
    persist_result=True,
    # Never pickled: a stored result is read back by other processes.
    result_serializer="json",
)
def verify_outbox(
    project: str,
    seconds: Annotated[float, Field(gt=0)] = 300.0,
    deep: bool = False,
    again: bool = False,
    locations: dict[str, str | None] | None = None,
) -> dict[str, Any]:
    """Verifies what the ledger claims of checkpoints and files, and returns what came of it.

    A claim that is wrong for good is an event `wtb.claim.failed`.

    Args:
        project: Where the project is: "package.module:project" or "path/to/file.py:project".
        seconds: Stop after about so long; the next run goes on.
        deep: Read every checkpoint and all bytes of files; else only their places and sizes.
        again: Claims that have failed for good are tried again.
        locations: Where the project keeps its things, if not where it says itself.
    """
    where = None if locations is None else ProjectLocations.from_json(locations)
    with masked_errors():
        definition = load_project(project, where)
        with (
            mirrored_events(steps=definition.step_events) as bus,
            open_session(definition, bus.publish) as session,
        ):
            if again:
                retry_failed(session)
            found = drain(session, seconds, deep=deep)
            with session.open_uow() as uow:
                metrics = uow.outbox.metrics(session.clock.now())
    get_run_logger().info("%s claims verified, %s failed", found.processed, len(found.failed))
    with optional("outbox artifact not created"):
        create_table_artifact(
            table=rows(found, metrics),
            key=artifact_key("outbox", definition.name),
            description=f"{definition.name}: claims across stores",
        )
    return {**asdict(found), "failed_in_all": metrics.failed, "pending": metrics.pending}


def rows(found: Verification, metrics: OutboxMetrics) -> list[dict[str, Any]]:
    """The outbox as a table: its counts, then each claim that has just failed."""
    counts = {
        "verified now": found.processed,
        "to be tried again": found.retried,
        "failed now": len(found.failed),
        "verified in all": metrics.processed,
        "pending": metrics.pending,
        "oldest pending, s": metrics.oldest_seconds,
        "failed in all": metrics.failed,
        "leases run out": metrics.expired,
    }
    table: list[dict[str, Any]] = [{"what": k, "value": v} for k, v in counts.items()]
    return table + [{"what": claim, "value": wrong} for claim, wrong in found.failed.items()]
