"""`wtb verify`: whether what the ledger claims of the other stores is so."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import asdict

from wtb_prefect.application.process_outbox import Verification
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import load_project
from wtb_prefect.sdk.test_bench import TestBench


def verify(args: Namespace, out: Output) -> int:
    """Verifies claims that are due; with `--watch` again and again."""
    with TestBench(load_project(args.project)) as bench:
        found = bench.verify_outbox(deep=args.deep, retry_failed=args.retry_failed)
        while args.watch:
            if found.looked_at:
                _say(found, out)
            time.sleep(args.watch)
            found = bench.verify_outbox(deep=args.deep)
        with bench.session.open_uow() as uow:
            metrics = uow.outbox.metrics(bench.session.clock.now())
    _say(found, out)
    oldest = "" if metrics.oldest_seconds is None else f" (oldest {metrics.oldest_seconds:.0f} s)"
    out.say(
        f"all claims: {metrics.processed} verified, {metrics.pending} pending{oldest}, "
        f"{metrics.failed} failed, {metrics.expired} leases run out"
    )
    if metrics.failed:
        out.say(f"try them again: wtb verify {args.project} --retry-failed")
    out.data({**asdict(found), "outbox": asdict(metrics)})
    return 1 if metrics.failed else 0


def _say(found: Verification, out: Output) -> None:
    out.say(f"{found.processed} claims verified, {found.retried} to be tried again")
    for claim, wrong in found.failed.items():
        out.say(f"failed: {claim}: {wrong}", style="red")
