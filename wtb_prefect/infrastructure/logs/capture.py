"""Prints and log records of user code, sent to the log of the execution they belong to.

While stretches run, `sys.stdout` and `sys.stderr` are stood in for, and each log record is looked
at before its handlers get it. Whose text it is says the context variable `body_context`; what does
not come from a stretch passes untouched. A handler on the root logger would be simpler, and would
change what user code meets: `logging.basicConfig` does nothing and warnings are not printed once
the root has a handler, and loggers that do not propagate never reach it.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

from wtb_prefect.infrastructure.logs.cell_logs import CellLog
from wtb_prefect.infrastructure.secrets import mask_secrets
from wtb_prefect.infrastructure.workflow.body_context import BodyContext, body_context

_lock = threading.Lock()
_installed = 0
_silenced = 0
_hooked = False
_pass_to_handlers = logging.Logger.callHandlers
_kept: ContextVar[bool] = ContextVar("wtb_kept", default=False)
"""Set while text that is kept already passes on to handlers and streams, which may lead here
again."""


@contextmanager
def capturing() -> Iterator[None]:
    """Keeps what user code prints and logs meanwhile. Nests, also over threads."""
    global _installed  # noqa: PLW0603 - the streams are the process's, and so is the count
    with _lock:
        _installed += 1
        if _installed == 1:
            _install()
    try:
        yield
    finally:
        with _lock:
            _installed -= 1
            if _installed == 0:
                _remove()


@contextmanager
def silenced() -> Iterator[None]:
    """Meanwhile what is kept is not printed too: it would break a progress display."""
    global _silenced  # noqa: PLW0603 - as above
    with _lock:
        _silenced += 1
    try:
        yield
    finally:
        with _lock:
            _silenced -= 1


def _install() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream, name))
    global _hooked, _pass_to_handlers  # noqa: PLW0603 - as above
    if not _hooked:
        _pass_to_handlers = logging.Logger.callHandlers
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign,assignment]
        _hooked = True


def _remove() -> None:
    """Takes away what is still on top; what others have wrapped meanwhile stays and passes all."""
    global _hooked  # noqa: PLW0603 - as above
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Stream):
            setattr(sys, name, stream.original)
    if logging.Logger.callHandlers is _call_handlers:
        logging.Logger.callHandlers = _pass_to_handlers  # type: ignore[method-assign]
        _hooked = False


def _log() -> tuple[BodyContext, CellLog] | None:
    """The context and log that text of this moment belongs to; None if it is not user code's."""
    context = body_context.get(None)
    if context is None or context.log is None:
        return None
    return context, context.log


def _node(context: BodyContext) -> tuple[str | None, str]:
    """The node (its path, for one of a subgraph) and a name of this run of it."""
    if context.label is not None:
        return context.label, context.label
    configurable = (var_child_runnable_config.get() or {}).get("configurable", {})
    namespace = configurable.get("checkpoint_ns") or ""
    # "outer:<task>|1|inner:<task>": a number counts calls of a subgraph within a task.
    nodes = [part.partition(":")[0] for part in namespace.split("|") if ":" in part]
    return "|".join(nodes) or None, namespace


class _Stream:
    """Stands in for a standard stream: the same to everybody, but what user code writes is kept."""

    def __init__(self, original: Any, name: str) -> None:
        self.original = original
        self._name = name

    def write(self, text: str) -> Any:
        """Keeps it, and passes it on without secrets."""
        found = _log()
        if found is None or not isinstance(text, str):
            return self.original.write(text)
        if not _kept.get():
            context, log = found
            log.write(self._name, *_node(context), text)
        if not _silenced:
            with _passing_on():
                self.original.write(mask_secrets(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As `write`, one after the other."""
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> _Bytes:
        """The same for bytes."""
        return _Bytes(self, self.original.buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.original)


class _Bytes:
    """The binary side of a stream."""

    def __init__(self, stream: _Stream, original: Any) -> None:
        self._stream = stream
        self._original = original

    def write(self, data: Any) -> Any:
        """As text where user code writes, byte for byte elsewhere."""
        if _log() is None:
            return self._original.write(data)
        self._stream.write(bytes(data).decode("utf-8", errors="backslashreplace"))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@contextmanager
def _passing_on() -> Iterator[None]:
    token = _kept.set(True)
    try:
        yield
    finally:
        _kept.reset(token)


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    found = _log()
    if found is None or _kept.get():
        return _pass_to_handlers(logger, record)
    context, log = found
    node, _ = _node(context)
    log.record(record.levelname, node, f"{record.name}: {_text_of(record)}")
    with _passing_on():
        return _pass_to_handlers(logger, record)


def _text_of(record: logging.LogRecord) -> str:
    """Message and traceback. Secrets leave the record itself: handlers may send it to servers."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a format that does not fit its arguments: handlers report it
        return mask_secrets(f"{record.msg!r} with {record.args!r}")
    text = mask_secrets(message)
    if text != message:
        record.msg, record.args = text, None
    if not record.exc_info and not record.exc_text:
        return text
    raised = record.exc_text or _FORMATTER.formatException(record.exc_info or sys.exc_info())
    masked = mask_secrets(raised)
    if masked != raised:
        record.exc_info, record.exc_text = None, masked
    return f"{text}\n{masked}"


_FORMATTER = logging.Formatter()
