"""The audit of all stores as a Prefect flow, to be scheduled."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run

from wtb_prefect.api.artifacts import artifact_key, optional
from wtb_prefect.api.masked_errors import masked_errors
from wtb_prefect.application.integrity.check_integrity import check_integrity
from wtb_prefect.bootstrap.audit import open_audit
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.domain.integrity import IntegrityReport
from wtb_prefect.domain.project import ProjectLocations

_SHOWN = 100


def run_name() -> str:
    """What people read in the list of runs."""
    return f"verify-integrity {flow_run.parameters.get('project')}"


@flow(
    name="verify_integrity",
    flow_run_name=run_name,
    persist_result=True,
    # Never pickled: a stored result is read back by other processes.
    result_serializer="json",
)
def verify_integrity(
    project: str,
    deep: bool = False,
    repair: bool = False,
    locations: dict[str, str | None] | None = None,
) -> dict[str, Any]:
    """Audits ledger, checkpoints and files against each other, and returns what was found.

    What is not healthy is an event `wtb.integrity.failed`.

    Args:
        project: Where the project is: "package.module:project" or "path/to/file.py:project".
        deep: Read every checkpoint and all contents of files, too.
        repair: Do about each issue what its action says.
        locations: Where the project keeps its things, if not where it says itself.
    """
    where = None if locations is None else ProjectLocations.from_json(locations)
    with masked_errors():
        definition = load_project(project, where)
        with open_audit(definition.locations) as stores:
            report = check_integrity(stores, deep=deep, repair=repair)
    get_run_logger().info("%s", str(report).partition("\n")[0])
    with optional("integrity artifact not created"):
        create_markdown_artifact(
            markdown=report_markdown(definition.name, report),
            key=artifact_key("integrity", definition.name),
            description=f"{definition.name}: audit of all stores",
        )
    if not report.healthy:
        emit_event(
            event="wtb.integrity.failed",
            resource={
                "prefect.resource.id": f"wtb.integrity.{definition.name}",
                "prefect.resource.name": definition.name,
            },
            payload={"issues": dict(report.by_severity)},
        )
    return {
        "healthy": report.healthy,
        "issues": dict(report.by_severity),
        "repaired": sum(issue.repaired for issue in report.issues),
        "checked": dict(report.checked),
    }


def report_markdown(name: str, report: IntegrityReport) -> str:
    """The report as a table, the first issues of many."""
    title = _cell(name)
    head = "healthy" if report.healthy else "**not healthy**"
    looked = ", ".join(f"{count} {what}" for what, count in report.checked.items())
    table = ["| severity | what | subject | detail | action |", "| --- | --- | --- | --- | --- |"]
    for issue in report.issues[:_SHOWN]:
        action = f"{issue.action}, done" if issue.repaired else str(issue.action)
        cells = (issue.severity, issue.kind, issue.subject, issue.detail, action)
        table.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
    more = len(report.issues) - _SHOWN
    left = [f"and {more} more: `wtb check`"] if more > 0 else []
    rows = ["\n".join(table)] if report.issues else []
    return "\n\n".join([f"# Integrity of {title}: {head}", f"Looked at {looked}.", *rows, *left])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
