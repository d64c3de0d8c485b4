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
from rich.measure import Measurement


class Output:
    """Text on stdout and notes on stderr; with `document`, JSON there and all text on stderr."""

    def __init__(self, document: TextIO | None = None) -> None:
        self._document = document
        self.notes = make_console(sys.stderr)
        self.text = self.notes if document else make_console(sys.stdout)

    @property
    def as_json(self) -> bool:
        """Whether the command was asked for JSON."""
        return self._document is not None

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line for people."""
        _line(self.text, text, style)

    def note(self, text: str, style: str | None = None) -> None:
        """A line beside the result."""
        _line(self.notes, text, style)

    def show(self, shown: RenderableType) -> None:
        """A table; nothing of it is cut where its reader can scroll or search."""
        if self.text.is_terminal:
            self.text.print(shown)
        else:
            room = Measurement.get(self.text, self.text.options.update(max_width=2000), shown)
            self.text.print(shown, width=room.maximum, crop=False, soft_wrap=True)

    def data(self, value: Any) -> None:
        """The one JSON document; does nothing where JSON was not asked for."""
        if self._document is not None:
            self._document.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")
            self._document.flush()


def make_console(stream: TextIO) -> Console:
    """A console that is plain where colours and moving lines are not wanted."""
    moving = stream.isatty() and "NO_COLOR" not in os.environ and _term() != "dumb"
    return Console(
        file=stream,
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


def _line(console: Console, text: str, style: str | None) -> None:
    console.print(text, style=style, soft_wrap=True)


def _term() -> str:
    return os.environ.get("TERM", "").lower()
