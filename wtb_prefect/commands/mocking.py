"""The options of `wtb plan` and `wtb run` that mock, replay and record nodes, and check cells."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from wtb_prefect.domain.mock_node import Recorded
from wtb_prefect.errors import InvalidInputError


def add_mocking(parser: ArgumentParser) -> None:
    """Adds the options to a command."""
    parser.add_argument(
        "--mock",
        metavar="NODE=JSON",
        action="append",
        default=[],
        help="what a node returns instead of being run, or NODE=@file.json; may be repeated",
    )
    parser.add_argument(
        "--recorded",
        metavar="NODE[=BATCH]",
        action="append",
        default=[],
        help="replay what a node returned in a batch that recorded it; may be repeated",
    )


def add_checks(parser: ArgumentParser) -> None:
    """Adds the options of a command that runs."""
    parser.add_argument(
        "--record",
        metavar="NODE",
        action="append",
        default=[],
        help="keep what a node returns, for --recorded; may be repeated",
    )
    parser.add_argument(
        "--self-check",
        metavar="K",
        type=int,
        default=0,
        help="run K of the cells again on their own, and compare",
    )


def mocks_of(args: Namespace) -> dict[str, Any]:
    """The mocks of a command. Raises `InvalidInputError`."""
    mocks: dict[str, Any] = {}
    for text in getattr(args, "mock", ()):
        node, equals, output = text.partition("=")
        if not equals or not node:
            raise InvalidInputError(f"--mock is NODE=JSON or NODE=@file.json, not {text!r}")
        _add(mocks, node, _output(node, output))
    for text in getattr(args, "recorded", ()):
        node, _, batch = text.partition("=")
        _add(mocks, node, Recorded(batch or None))
    return mocks


def _add(mocks: dict[str, Any], node: str, output: Any) -> None:
    if node in mocks:
        raise InvalidInputError(f"node {node!r} is mocked twice")
    mocks[node] = output


def _output(node: str, text: str) -> Any:
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidInputError(f"the mock of node {node!r} cannot be read: {exc}") from exc
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(
            f"the mock of node {node!r} is not JSON ({exc}); for example "
            f"""--mock '{node}={{"key": "value"}}'"""
        ) from exc
