"""What children of the warm process can be asked to do; arguments and answers are JSON."""

from __future__ import annotations

from typing import Any

import oracle
from bench_project import project
from operations import OPERATIONS

from wtb_prefect import TestBench


def prepare(name: str) -> None:
    with TestBench(project) as bench:
        OPERATIONS[name].prepare(bench)


def run(name: str) -> None:
    with TestBench(project) as bench:
        OPERATIONS[name].run(bench)


def undisturbed(name: str) -> Any:
    return oracle.undisturbed(name)


def judge(name: str, expected: Any, killed: bool, acknowledged: bool) -> list[str]:
    return oracle.judge(name, expected, killed, acknowledged)
