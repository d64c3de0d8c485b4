"""Where a database is, in words that may be shown: its URL without the password.

URLs travel to workers, to Prefect and into notes of blob stores, where everybody reads them. The
password stays in the process that was given it: workers import the project again, or find it in
their environment as any PostgreSQL client does (`PGPASSWORD`, `~/.pgpass`).
"""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.secrets import keep_secret

DATABASE_URL = "WTB_DATABASE_URL"
"""The environment variable with the URL of projects that do not say where their database is."""

_SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
_SECRET_OPTIONS = ("password", "sslpassword")

_given: dict[str, str] = {}
"""URLs with their passwords as this process was given them, by what may be shown of them."""


def is_postgres(url: str) -> bool:
    """Whether a URL names a PostgreSQL database."""
    return url.partition("://")[0] in _SCHEMES


def shown_url(url: str) -> str:
    """The URL without its password, which this process remembers for `full_url`.

    Raises:
        InvalidInputError: it is not one of SQLite or PostgreSQL, or cannot be told apart from its
            password.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        if not url.removeprefix("sqlite:///") or not url.startswith("sqlite:///"):
            raise InvalidInputError("database_url names no file: sqlite:///path/to/file.db")
        return url
    if not is_postgres(url):
        raise InvalidInputError(  # only the scheme: the rest may hold a password
            f"database_url begins with {scheme[:20]!r}; it has to be "
            "postgresql://user@host/database or sqlite:///path/to/file.db"
        )
    shown, secrets = _split(url)
    for secret in secrets:
        keep_secret("DATABASE_PASSWORD", secret)
    if secrets:
        _given[shown] = url
    return shown


def full_url(shown: str) -> str:
    """The URL with the password this process was given, or has in its environment."""
    if shown not in _given and is_postgres(os.environ.get(DATABASE_URL, "")):
        shown_url(os.environ[DATABASE_URL])
    return _given.get(shown, shown)


def has_password(shown: str) -> bool:
    """Whether this process was given a password for a URL."""
    return shown in _given


def _split(url: str) -> tuple[str, list[str]]:
    parts = urlsplit(url)
    user_part, _, server = parts.netloc.rpartition("@")
    user, _, password = user_part.partition(":")
    port = server.rpartition("]")[2].partition(":")[2]
    if "@" in parts.path or parts.fragment or (port and not port.isdecimal()):
        raise InvalidInputError(
            "database_url cannot be read: write @, /, :, ? and # in its user and password as "
            "%40, %2F, %3A, %3F and %23"
        )
    if not parts.path.strip("/"):
        raise InvalidInputError("database_url names no database: postgresql://user@host/database")
    options = parse_qsl(parts.query, keep_blank_values=True)
    secrets = [value for name, value in options if name in _SECRET_OPTIONS and value]
    shown = urlunsplit(
        (
            "postgresql",
            f"{user}@{server}" if user else server,
            parts.path,
            urlencode([option for option in options if option[0] not in _SECRET_OPTIONS]),
            "",
        )
    )
    return shown, [*([unquote(password)] if password else []), *secrets]
