"""`wtb gc`: removes contents of files that nothing names any more."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from wtb_prefect import terminal
from wtb_prefect.application.collect_garbage import GarbageReport, collect_garbage
from wtb_prefect.bootstrap.garbage import open_garbage
from wtb_prefect.commands.look import need_ledger
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import find_project


def gc(args: Namespace, out: Output) -> int:
    """Collects, or says what would go."""
    project = find_project(args.project)
    with need_ledger(project):
        pass  # a project without a batch has nothing to collect, and says so
    with open_garbage(project.locations) as stores:
        report = collect_garbage(stores, args.grace, dry_run=args.dry_run)
    for line in _lines(report):
        out.say(line)
    out.data(report)
    return 0


def _lines(report: GarbageReport) -> Iterator[str]:
    verb = "would remove" if report.dry_run else "removed"
    yield (
        f"{verb} {report.blobs} contents of files "
        f"({terminal.bytes_text(report.blob_bytes)}) and {report.commits} file commits"
    )
    if report.leftovers:
        size = terminal.bytes_text(report.leftover_bytes)
        yield f"{verb} {report.leftovers} files that killed writers have left ({size})"
    yield f"  in use: {report.named} ({terminal.bytes_text(report.named_bytes)})"
    if report.young:
        yield (
            f"  not named, but younger than {report.grace_hours:g} h: {report.young} "
            f"({terminal.bytes_text(report.young_bytes)})"
        )
