"""Where a command's words go: people's text, or one JSON document and nothing beside it."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, RenderableType


class Output:
    """Text on stdout and notes on stderr; with `document`, JSON there in place of the text."""

    def __init__(self, document: TextIO | None = None) -> None:
        self._document = document
        self.notes = make_console(sys.stderr)
        self.text = make_console(sys.stdout)
        self.text.quiet = document is not None

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line for people."""
        self.text.print(text, style=style, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line beside the result."""
        self.notes.print(text, soft_wrap=True)

    def show(self, shown: RenderableType) -> None:
        """A table."""
        self.text.print(shown)

    def data(self, value: Any) -> None:
        """The one JSON document; does nothing where JSON was not asked for."""
        if self._document is not None:
            self._document.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")
            self._document.flush()


_NO_LIMIT = 10_000


def make_console(stream: TextIO) -> Console:
    """A console that is plain where colours and moving lines are not wanted.

    What does not go to a terminal is as wide as it needs to be: a file or a pipe has no edge.
    """
    dumb = os.environ.get("TERM", "").lower() == "dumb"
    moving = stream.isatty() and "NO_COLOR" not in os.environ and not dumb
    return Console(
        file=stream,
        width=None if stream.isatty() else _NO_LIMIT,
        force_terminal=moving,
        color_system="auto" if moving else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def plain(value: Any) -> Any:
    """JSON values of anything; what JSON cannot say becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _object(value)


def _object(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    return repr(value)


@contextmanager
def only_json_on_stdout() -> Iterator[TextIO]:
    """Whatever prints meanwhile (nodes, libraries, child processes) prints to stderr.

    Yields the stream for the document.
    """
    real = sys.stdout
    if not _is_process_stdout(real):
        with redirect_stdout(sys.stderr):
            yield real
        return
    real.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with (
            redirect_stdout(sys.stderr),
            open(saved, "w", encoding="utf-8", closefd=False) as document,
        ):
            yield document
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _is_process_stdout(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (AttributeError, OSError):  # a test or a notebook has put something else there
        return False
