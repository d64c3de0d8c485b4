"""`wtb check`: the audit of all stores against each other."""

from __future__ import annotations

from argparse import Namespace

from wtb_prefect.application.integrity.check_integrity import check_integrity
from wtb_prefect.bootstrap.audit import open_audit
from wtb_prefect.commands.confirming import confirmed
from wtb_prefect.commands.look import need_ledger
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import find_project
from wtb_prefect.domain.integrity import IntegrityReport, RepairAction, Severity

_STYLES = {Severity.CRITICAL: "red", Severity.WARNING: "yellow", Severity.INFO: ""}
_SHOWN_INFO = 5


def check(args: Namespace, out: Output) -> int:
    """Audits, and repairs if that is asked for and confirmed."""
    project = find_project(args.project)
    with need_ledger(project), open_audit(project.locations) as stores:
        report = check_integrity(stores, deep=args.deep)
        _say(report, out)
        can = [i for i in report.issues if i.action is not RepairAction.MANUAL]
        if args.repair and can:
            if confirmed(
                args, f"repair {len(can)} of {len(report.issues)} issues?", "leave out --repair"
            ):
                report = check_integrity(stores, deep=args.deep, repair=True)
                done = sum(issue.repaired for issue in report.issues)
                out.say(f"{done} issues repaired, {len(report.issues) - done} are left")
            else:
                out.say("nothing was changed")
        elif can and not args.repair:
            out.say(f"{len(can)} of them can be repaired: wtb check {args.project} --repair")
    out.data({**_document(report), "healthy": report.healthy})
    return 0 if report.healthy else 1


def _say(report: IntegrityReport, out: Output) -> None:
    looked = ", ".join(f"{count} {name}" for name, count in report.checked.items())
    out.say(f"{'healthy' if report.healthy else 'not healthy'}: {looked}")
    info = [issue for issue in report.issues if issue.severity is Severity.INFO]
    for issue in report.issues:
        if issue not in info[_SHOWN_INFO:]:
            out.say(str(issue), style=_STYLES[issue.severity])
    if len(info) > _SHOWN_INFO:
        out.say(f"and {len(info) - _SHOWN_INFO} more that only take up space (--json has them)")


def _document(report: IntegrityReport) -> dict[str, object]:
    return {
        "at": report.at,
        "deep": report.deep,
        "checked": dict(report.checked),
        "issues": list(report.issues),
    }
