"""The options of the commands that control single executions."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable

AddCommand = Callable[[str, str, str], ArgumentParser]

_WAIT_SECONDS = 30.0


def add_single(run: ArgumentParser) -> None:
    """`wtb run --state`: one execution in place of a batch."""
    run.add_argument(
        "--state",
        metavar="JSON",
        help="run once from this state (or @file.json) instead of a batch over cases",
    )
    _add_breakpoints(run, [])


def add_controls(add: AddCommand, project: str) -> list[ArgumentParser]:
    """The commands themselves; gives those that may run a batch."""
    for name, summary in (
        ("pause", "have a running execution pause before its next super-step"),
        ("stop", "cancel an execution for good"),
    ):
        _add_wait(_add(add, name, summary, project))
    resume = _add(add, "resume", "go on with a paused, failed or crashed execution", project)
    _add_edit(resume)
    _add_value(resume)
    _add_breakpoints(resume, None)
    _add_value(_add(add, "step", "run one super-step of a paused execution", project))
    rollback = _add(add, "rollback", "put an execution back to a checkpoint behind it", project)
    rollback.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?")
    rollback.add_argument("--node", metavar="NODE", help="to just after this node's last visit")
    return [_add_branch(add, project)]


def _add_branch(add: AddCommand, project: str) -> ArgumentParser:
    branch = add("branch", "branching:branch", "go on from a checkpoint in a new execution")
    branch.add_argument("project", metavar="PROJECT", help=project)
    branch.add_argument(
        "execution", metavar="EXECUTION", nargs="?", help="its id, or how it begins"
    )
    branch.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?")
    branch.add_argument(
        "--variant", metavar="NODE=NAME", action="append", default=[], help="repeatable"
    )
    _add_edit(branch)
    _add_breakpoints(branch, [])
    branch.add_argument(
        "--all-cells", metavar="BATCH", help="fork every cell of this batch, with --node, --variant"
    )
    branch.add_argument("--node", metavar="NODE", help="where the cells of the batch fork")
    branch.add_argument("--batch-id", metavar="ID", help="a name of its own for the new batch")
    return branch


def add_points(name: str, look: ArgumentParser) -> None:
    """What `wtb state` and `wtb files` compare with, and where files go."""
    if name != "history":
        look.add_argument("--diff", metavar="CHECKPOINT", help="what differs from there to here")
    if name == "files":
        look.add_argument("--restore-to", metavar="DIR", help="write them to this new folder")


def _add(add: AddCommand, name: str, summary: str, project: str) -> ArgumentParser:
    parser = add(name, f"control:{name}", summary)
    parser.add_argument("project", metavar="PROJECT", help=project)
    parser.add_argument("execution", metavar="EXECUTION", help="its id, or how the id begins")
    return parser


def _add_wait(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        metavar="S",
        type=float,
        default=_WAIT_SECONDS,
        help="seconds to wait for it to take effect (%(default)s); the request stands after them",
    )


def _add_edit(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--update", metavar="JSON", help="change the state first, through its reducers"
    )


def _add_value(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--value", metavar="ANSWER", help="the answer to its question: JSON, or text as it is"
    )


def _add_breakpoints(parser: ArgumentParser, default: list[str] | None) -> None:
    parser.add_argument(
        "--breakpoint",
        metavar="NODE",
        action="append",
        default=default,
        help="stop before this node whenever it comes up; repeatable",
    )
