"""Garbage collection as a Prefect flow, to be scheduled."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from pydantic import Field

from wtb_prefect.api.artifacts import artifact_key, optional
from wtb_prefect.api.masked_errors import masked_errors
from wtb_prefect.application.collect_garbage import GRACE_HOURS, GarbageReport
from wtb_prefect.application.collect_garbage import collect_garbage as collect
from wtb_prefect.bootstrap.garbage import open_garbage
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.domain.project import ProjectLocations


def run_name() -> str:
    """What people read in the list of runs."""
    return f"collect-garbage {flow_run.parameters.get('project')}"


@flow(
    name="collect_garbage",
    flow_run_name=run_name,
    persist_result=True,
    # Never pickled: a stored result is read back by other processes.
    result_serializer="json",
)
def collect_garbage(
    project: str,
    grace_hours: Annotated[float, Field(ge=0)] = GRACE_HOURS,
    dry_run: bool = False,
    locations: dict[str, str | None] | None = None,
) -> dict[str, Any]:
    """Removes contents of files that no ledger names any more, and returns what went.

    Args:
        project: Where the project is: "package.module:project" or "path/to/file.py:project".
        grace_hours: What was written in the last so many hours stays. 0 only if nothing runs.
        dry_run: Only say what would go.
        locations: Where the project keeps its things, if not where it says itself.
    """
    where = None if locations is None else ProjectLocations.from_json(locations)
    with masked_errors():
        definition = load_project(project, where)
        with open_garbage(definition.locations) as stores:
            report = collect(stores, grace_hours, dry_run=dry_run)
    get_run_logger().info("%s blobs, %s bytes", report.blobs, report.blob_bytes)
    with optional("garbage artifact not created"):
        create_markdown_artifact(
            markdown=report_markdown(definition.name, report),
            key=artifact_key("garbage", definition.name),
            description=f"{definition.name}: contents that nothing names",
        )
    return asdict(report)


def report_markdown(name: str, report: GarbageReport) -> str:
    """The report as a table."""
    rows = (
        ("contents of files", report.blobs, report.blob_bytes),
        ("file commits", report.commits, ""),
        ("left by killed writers", report.leftovers, report.leftover_bytes),
        ("stays: in use", report.named, report.named_bytes),
        (f"stays: younger than {report.grace_hours:g} h", report.young, report.young_bytes),
    )
    what = "would go" if report.dry_run else "went"
    table = ["| what | count | bytes |", "| --- | --- | --- |"]
    table += [f"| {row} | {count} | {size} |" for row, count, size in rows]
    title = name.replace("|", "\\|").replace("<", "&lt;")
    return "\n\n".join([f"# Garbage of {title}: what {what}", "\n".join(table)])
