"""Values of secret environment variables, kept out of everything that is stored.

A node may print its API key, a client may repeat it in an error message: neither may reach the
ledger, a log file or Prefect.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

_SECRET_NAME = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?\d*(_|$)|_(PASS|PWD)$"
)
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_SHORTEST = 8
"""Shorter values (`true`, `none`) are words that stand in any text."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The secrets of the environment as it was: names with values, and how to find the values."""

    variables: int
    values: dict[str, str]
    names: dict[str, str]
    pattern: re.Pattern[str] | None

    def holds(self) -> bool:
        """Whether the environment still has these, and no variable more (5 us with 60 of them)."""
        environment = os.environ
        return len(environment) == self.variables and all(
            environment.get(name) == value for name, value in self.values.items()
        )


_NOTHING = _Known(-1, {}, {}, None)
_known = _NOTHING
_kept: dict[str, str] = {}
"""Secrets that are no variable of their own, with the names they are shown by."""


def keep_secret(name: str, value: str) -> None:
    """Masks a value from now on, too: a password that came in a URL."""
    global _known  # noqa: PLW0603 - as in `mask_secrets`
    if _kept.get(value) != name:
        _kept[value] = name
        _known = _NOTHING


def mask_secrets(text: str) -> str:
    """The text with `***NAME***` in place of the value of each secret variable.

    Secret are variables whose names say so (KEY, TOKEN, SECRET, PASSWORD, CREDENTIAL, ...) and the
    passwords of URLs in any other variable, from 8 characters on. A variable that is set later (by
    a `.env` file that a node reads) counts from then on.
    """
    global _known  # noqa: PLW0603 - replaced whole, so that threads see the old one or the new one
    known = _known
    if not known.holds():
        _known = known = _read_environment()
    if known.pattern is None:
        return text
    return known.pattern.sub(lambda found: f"***{known.names[found.group()]}***", text)


def _read_environment() -> _Known:
    environment = dict(os.environ)
    values = {
        name: value
        for name, value in environment.items()
        if is_secret_name(name) or _URL_PASSWORD.search(value)
    }
    found: dict[str, str] = {}
    for name, value in sorted(values.items()):
        if is_secret_name(name):
            _add_forms(found, name, value)
        for password in _URL_PASSWORD.findall(value):
            _add_forms(found, name, password, unquote(password))
    for value, name in list(_kept.items()):
        _add_forms(found, name, value)
    # The longest first: one secret may begin like another.
    parts = sorted(found, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, parts))) if parts else None
    return _Known(len(environment), values, found, pattern)


def _add_forms(found: dict[str, str], name: str, *values: str) -> None:
    for value in values:
        for form in _forms(value):
            found.setdefault(form, name)


def is_secret_name(name: str) -> bool:
    """Whether the value of a variable of this name is to be kept secret."""
    return _SECRET_NAME.search(name.upper()) is not None


def _forms(value: str) -> Iterator[str]:
    """The ways a value is written: itself, in quotes, in JSON, in a URL, and line by line."""
    ways = (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe=""))
    for way in (*ways, *value.splitlines()):
        if len(way) >= _SHORTEST:
            yield way
