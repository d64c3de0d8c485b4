"""The options of `wtb plan` and `wtb run` that say how a batch is run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import cast

from wtb_prefect.application.run_options import RunSettings


def add_run_settings(parser: ArgumentParser) -> None:
    """Adds the options to a command."""
    parser.add_argument(
        "--retries",
        metavar="N",
        type=int,
        help="attempts after a timeout, a lost connection, status 429 or 5xx (3)",
    )
    parser.add_argument(
        "--time-limit", metavar="S", type=float, help="seconds a cell may take, prefix included"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="failed cells go on from their last record"
    )
    parser.add_argument(
        "--fail-fast", action="store_true", help="start nothing new after the first failed cell"
    )
    parser.add_argument(
        "--no-cache",
        dest="use_cache",
        action="store_const",
        const=False,
        help="run nodes declared as cached like any others",
    )


def run_settings(args: Namespace) -> RunSettings:
    """What was asked for; a command without these options asks for nothing."""
    asked = {name: getattr(args, name, None) for name in RunSettings.__annotations__}
    return cast("RunSettings", {name: value for name, value in asked.items() if value is not None})
