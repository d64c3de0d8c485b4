"""`wtb run --state`, `pause`, `resume`, `step`, `stop`, `rollback`, and `branch` of one."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from wtb_prefect import terminal
from wtb_prefect.application.read_history import read_history
from wtb_prefect.commands.look import find_any_checkpoint, need_ledger
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import find_project, load_project
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.sdk.run_result import RunResult
from wtb_prefect.sdk.test_bench import TestBench

_EXIT = {
    ExecutionStatus.COMPLETED: 0,
    ExecutionStatus.FAILED: 1,
    ExecutionStatus.CRASHED: 4,
}
_STOPPED_BEFORE_THE_END = 5


def run_once(args: Namespace, out: Output) -> int:
    """Runs the workflow once, from a state, under control."""
    with TestBench(load_project(args.project)) as bench:
        ended = bench.run(
            initial_state=_mapping("--state", args.state) or {},
            variants=_variants(args),
            breakpoints=args.breakpoint,
        )
        return _show(ended, args, out)


def pause(args: Namespace, out: Output) -> int:
    """Has a running execution pause before its next super-step."""
    with TestBench(load_project(args.project)) as bench:
        left = bench.pause(args.execution, wait=args.wait)
    _show(left, args, out)
    return 0 if left.status is ExecutionStatus.PAUSED else _STOPPED_BEFORE_THE_END


def stop(args: Namespace, out: Output) -> int:
    """Cancels an execution for good."""
    with TestBench(load_project(args.project)) as bench:
        left = bench.stop(args.execution, wait=args.wait)
    _show(left, args, out)
    return 0 if left.status is ExecutionStatus.CANCELLED else _STOPPED_BEFORE_THE_END


def resume(args: Namespace, out: Output) -> int:
    """Goes on with an execution from where it stands."""
    with TestBench(load_project(args.project)) as bench:
        ended = bench.resume(
            args.execution,
            update=_mapping("--update", args.update),
            value=_value(args.value),
            breakpoints=args.breakpoint,
        )
        return _show(ended, args, out)


def step(args: Namespace, out: Output) -> int:
    """Runs one super-step of an execution."""
    with TestBench(load_project(args.project)) as bench:
        return _show(bench.step(args.execution, value=_value(args.value)), args, out)


def rollback(args: Namespace, out: Output) -> int:
    """Puts an execution back to a checkpoint behind it."""
    with TestBench(load_project(args.project)) as bench:
        found = bench.execution(args.execution).execution_id
        at = None if args.checkpoint is None else _checkpoint(args, found)
        back = bench.rollback(found, checkpoint_id=at, node=args.node)
        _show(back, args, out)
    return 0


def branch_one(args: Namespace, out: Output) -> int:
    """A new execution that goes on from a checkpoint of another one."""
    with TestBench(load_project(args.project)) as bench:
        found = bench.execution(args.execution).execution_id
        ended = bench.branch(
            found,
            _checkpoint(args, found),
            variants=_variants(args),
            update=_mapping("--update", args.update),
            breakpoints=args.breakpoint,
        )
        return _show(ended, args, out)


def _show(run: RunResult, args: Namespace, out: Output) -> int:
    """How the execution stands, and what to do next; gives the exit status."""
    before = f" before {', '.join(run.next)}" if run.next else ""
    out.say(f"execution {run.execution_id}: {run.status}{before}")
    if run.error is not None:
        out.say(terminal.one_line(str(run.error)))
    for key, value in run.state.items():
        out.say(f"{key}: {pformat(value, width=100)}")
    for question in run.questions:
        out.say(f"asks ({question.id}): {question.value!r}")
    short = f"{args.project} {run.execution_id[:13]}"
    if run.questions:
        out.say(f"answer it:  wtb resume {short} --value ANSWER")
    elif run.status is ExecutionStatus.PAUSED:
        out.say(f"go on:      wtb resume {short}    (one step: wtb step {short})")
    out.say(f"look back:  wtb history {short}")
    out.data(run)
    return _EXIT.get(run.status, _STOPPED_BEFORE_THE_END)


def _checkpoint(args: Namespace, execution_id: str) -> str:
    """A checkpoint behind an execution, or that it left behind, by its id or how that begins."""
    with need_ledger(find_project(args.project)) as open_uow:
        history = read_history(open_uow, execution_id)
        return find_any_checkpoint(open_uow, history, args.checkpoint)


def _variants(args: Namespace) -> dict[str, str]:
    pairs = [text.partition("=") for text in args.variant]
    for node, equals, name in pairs:
        if not (node and equals and name) or "," in name or name == "*":
            raise InvalidInputError(
                f"--variant is NODE=NAME for a single execution, not {node + equals + name!r}"
            )
    return {node: name for node, _, name in pairs}


def _mapping(option: str, text: str | None) -> Mapping[str, Any] | None:
    """A JSON object, or one in a file (@file.json). Raises `InvalidInputError`."""
    if text is None:
        return None
    try:
        given = Path(text[1:]).read_text(encoding="utf-8-sig") if text.startswith("@") else text
        found = json.loads(given)
    except (OSError, ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{option} is not JSON that can be read ({exc}): {text}") from exc
    if not isinstance(found, dict):
        raise InvalidInputError(f"{option} is a JSON object of state keys, not {text}")
    return found


def _value(text: str | None) -> Any:
    """An answer: JSON, or else the text as it is."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
