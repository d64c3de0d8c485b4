"""The command line `wtb`.

Exit status: 0 done; 1 some cells failed; 2 bad usage or bad input; 4 infrastructure; 5 stopped
before the end; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import NoReturn, TypeAlias

from wtb_prefect import __version__
from wtb_prefect.commands.control_options import add_controls, add_points, add_single
from wtb_prefect.commands.mocking import add_checks, add_mocking
from wtb_prefect.commands.output import Output, only_json_on_stdout
from wtb_prefect.commands.run_settings import add_run_settings
from wtb_prefect.errors import BatchBusyError, InfrastructureError, InvalidInputError, WTBError
from wtb_prefect.infrastructure.node_threads import nodes_left_behind

Command = Callable[[argparse.Namespace, Output], int]

_PROJECT = "path/to/file.py:project or package.module:project"


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without "±" shows "?"
    try:
        args = _parser().parse_args(argv)
    except SystemExit as exc:  # argparse ends --help and bad usage this way
        return exc.code if isinstance(exc.code, int) else 2
    if args.debug:
        return _run(args)
    return _guarded(args)


def entry() -> NoReturn:
    """The console script: `main`, then the end of the process."""
    status = main()
    if status == 130 or nodes_left_behind():
        # A sync node that still runs would print into streams that are being closed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _run(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        document = stack.enter_context(only_json_on_stdout()) if args.json else None
        module, _, name = args.command.partition(":")
        # Each command imports what it needs: `wtb list` must not wait for LangGraph or Prefect.
        command: Command = getattr(import_module(f"wtb_prefect.commands.{module}"), name)
        return command(args, Output(document))


def _guarded(args: argparse.Namespace) -> int:
    try:
        return _run(args)
    except InvalidInputError as exc:
        return _failed(exc, 2)
    except BrokenPipeError:
        # Whoever read has gone (`| head`); Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (InfrastructureError, BatchBusyError, WTBError, OSError) as exc:
        return _failed(exc, 4)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except Exception as exc:  # noqa: BLE001 - the outermost edge: a bug still has an exit status
        traceback.print_exc()
        return _failed(f"unexpected {type(exc).__name__}: {exc} (please report this)", 4)


def _failed(problem: object, status: int) -> int:
    sys.stderr.write(f"wtb: {problem}\n")
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Bad usage in one line, without the whole usage before it."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="wtb",
        description="Test bench for LangGraph workflows: compares variants of nodes over cases.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wtb {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=_Parser
    )
    _add_starters(commands)
    _add_runs(commands)
    for batch in add_controls(partial(_add, commands), _PROJECT):
        _add_runner(batch)
        _add_cells(batch)
    _add_looks(commands)
    _add_removals(commands)
    doctor = _add(commands, "doctor", "doctor:doctor", "check versions, servers and folders")
    doctor.add_argument("project", metavar="PROJECT", nargs="?", help="look at its output folder")
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _add(commands: Commands, name: str, command: str, summary: str) -> _Parser:
    parser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    parser.set_defaults(command=command)
    return parser


def _add_starters(commands: Commands) -> None:
    init = _add(commands, "init", "starter:init", "write a starter project")
    init.add_argument("folder", metavar="FOLDER", nargs="?", default=".")
    demo = _add(commands, "demo", "run:demo", "write the starter project and run it")
    demo.add_argument("folder", metavar="FOLDER", nargs="?", default="wtb-demo")
    _add_runner(demo)
    _add_cells(demo)


def _add_runs(commands: Commands) -> None:
    plan = _add(commands, "plan", "run:plan", "say what a run would do, without running")
    _add_request(plan)
    add_mocking(plan)
    run = _add(commands, "run", "run:run", "run what is missing of a batch test, and compare")
    _add_request(run)
    add_mocking(run)
    add_checks(run)
    add_single(run)
    _add_cells(run)
    _add_debug(commands)


def _add_debug(commands: Commands) -> None:
    debug = _add(commands, "debug", "debug:debug", "run one cell again under the debugger")
    _add_cell(debug)
    debug.add_argument(
        "--at",
        metavar="CHECKPOINT",
        help="from there; default: before the node that failed, or else the start",
    )
    debug.add_argument("--node", metavar="NODE", help="stop in this node only; default: in each")
    debug.add_argument("--post-mortem", action="store_true", help="stop only where a node raises")
    debug.add_argument("--keep", action="store_true", help="keep what this run recorded")


def _add_request(parser: _Parser) -> None:
    parser.add_argument("project", metavar="PROJECT", help=_PROJECT)
    parser.add_argument("--cases", metavar="FILE", help="a .jsonl or .csv file")
    parser.add_argument("--matrix", metavar="JSON", help='\'{"node": ["a", "b"]}\', or @file.json')
    parser.add_argument(
        "--variant",
        metavar="NODE=A,B",
        action="append",
        default=[],
        help="the matrix in parts: variants of a node, or * for all; may be repeated",
    )
    parser.add_argument("--repeats", metavar="N", type=int, default=1, help="draws of each case")
    parser.add_argument("--batch-id", metavar="ID", help="a name of its own for the batch")
    parser.add_argument(
        "--no-share", dest="share", action="store_false", help="run every cell from its start"
    )
    parser.add_argument(
        "--keep-stale", action="store_true", help="leave done cells although code or case changed"
    )
    add_run_settings(parser)
    _add_filter(parser)
    parser.add_argument("--limit", metavar="N", type=int, help="the first N cases of these")
    _add_runner(parser)


def _add_cell(parser: _Parser) -> None:
    parser.add_argument("project", metavar="PROJECT", help=_PROJECT)
    parser.add_argument(
        "cell",
        metavar="CELL",
        help="a cell's or an execution's id, or how it begins; or combination/case[/repeat]",
    )
    parser.add_argument("--batch", metavar="BATCH", help="of combination/case; default: the newest")


def _add_filter(parser: _Parser) -> None:
    for name, what in (
        ("case", "ID: only this case; * and ? stand for anything"),
        ("combination", "NAME: only this combination, by its name or a pattern"),
        ("tag", "TAG: only cases with this tag"),
    ):
        word, _, text = what.partition(": ")
        parser.add_argument(
            f"--{name}", metavar=word, action="append", default=[], help=f"{text}; repeatable"
        )


def _add_runner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-parallel", metavar="N", type=int, help="stretches in flight at once")
    parser.add_argument(
        "--runner",
        metavar="NAME",
        default="ray",
        help="ray (the Prefect flow on Ray, the default), threads (on threads) or inline (neither)",
    )


def _add_cells(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cells", dest="cells_too", action="store_true", help="every cell, with its error"
    )


def _add_looks(commands: Commands) -> None:
    listed = _add(commands, "list", "look:list_batches", "list batches, newest first")
    listed.add_argument("project", metavar="PROJECT", help=_PROJECT)
    listed.add_argument("--disk", action="store_true", help="what each takes on disk")
    listed.add_argument("--runs", action="store_true", help="single executions instead of batches")
    results = _add(commands, "results", "look:results", "compare the combinations of a batch")
    results.add_argument("project", metavar="PROJECT", help=_PROJECT)
    results.add_argument("batch", metavar="BATCH", nargs="?", help="default: the newest")
    _add_filter(results)
    _add_cells(results)
    for name, summary in (
        ("history", "list the checkpoints behind an execution"),
        ("state", "print the state of an execution"),
        ("files", "list the files of an execution"),
    ):
        look = _add(commands, name, f"look:{name}", summary)
        look.add_argument("project", metavar="PROJECT", help=_PROJECT)
        look.add_argument("execution", metavar="EXECUTION", help="its id, or how the id begins")
        look.add_argument("--at", metavar="CHECKPOINT", help="as of this checkpoint")
        add_points(name, look)
    logs = _add(commands, "logs", "logs:logs", "what the code of a cell printed and logged")
    _add_cell(logs)
    logs.add_argument("--node", metavar="NODE", help="of this node only")


def _add_removals(commands: Commands) -> None:
    delete = _add(commands, "delete", "delete:delete", "delete a batch, or its checkpoints")
    delete.add_argument("project", metavar="PROJECT", help=_PROJECT)
    delete.add_argument("batch", metavar="BATCH", help="its id, or how the id begins")
    delete.add_argument(
        "--checkpoints",
        action="store_true",
        help="only checkpoints, all but the last of each execution; results stay",
    )
    delete.add_argument("--dry-run", action="store_true", help="say what would go, and stop")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    _add_checks(commands)
    garbage = _add(commands, "gc", "garbage:gc", "remove contents of files that nothing names")
    garbage.add_argument("project", metavar="PROJECT", help=_PROJECT)
    garbage.add_argument("--dry-run", action="store_true", help="say what would go, and stop")
    garbage.add_argument(
        "--grace",
        metavar="HOURS",
        type=float,
        default=24.0,
        help="what was written in the last HOURS stays (24); 0 only if nothing runs",
    )


def _add_checks(commands: Commands) -> None:
    check = _add(commands, "check", "check:check", "audit ledger, checkpoints and files")
    check.add_argument("project", metavar="PROJECT", help=_PROJECT)
    check.add_argument("--deep", action="store_true", help="read all checkpoints and files")
    check.add_argument("--repair", action="store_true", help="repair what can be, after asking")
    check.add_argument("--yes", action="store_true", help="do not ask")
    verify = _add(commands, "verify", "verify:verify", "verify claims across ledger and stores")
    verify.add_argument("project", metavar="PROJECT", help=_PROJECT)
    verify.add_argument("--deep", action="store_true", help="read all checkpoints and files")
    verify.add_argument(
        "--retry-failed", action="store_true", help="try claims again that have failed for good"
    )
    verify.add_argument(
        "--watch",
        metavar="S",
        type=float,
        nargs="?",
        const=10.0,
        help="go on for ever, every S seconds (10)",
    )


if __name__ == "__main__":
    entry()
