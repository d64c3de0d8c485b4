"""Where a database is, in words that may be shown: its URL without the password.

URLs travel to workers, to Prefect and into notes of blob stores, where everybody reads them. The
password stays in the process that was given it: workers import the project again, or find it in
their environment as any PostgreSQL client does (`PGPASSWORD`, `~/.pgpass`).
"""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

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
    shown, secrets = _split(url)
    for secret in secrets:
        keep_secret("DATABASE_PASSWORD", secret)
    if secrets:
        _given[shown] = url
    return shown


def environment_url() -> str | None:
    """The environment's URL as it may be shown. Raises as `shown_url`."""
    url = os.environ.get(DATABASE_URL)
    return _split(url)[0] if url else None


def full_url(shown: str) -> str:
    """The URL with the password this process was given, or has in its environment."""
    if shown in _given:
        return _given[shown]
    try:
        ours = environment_url() == shown
    except InvalidInputError:  # it is another project's, who is told
        ours = False
    return os.environ[DATABASE_URL] if ours else shown


def has_password(shown: str) -> bool:
    """Whether this process was given a password for a URL, other than by its environment."""
    return shown in _given


def _split(url: str) -> tuple[str, list[str]]:
    """What may be shown of a URL, and the secrets in it."""
    if is_postgres(url):
        return _split_postgres(url)
    if url.startswith("sqlite:///") and url != "sqlite:///":
        return url, []
    scheme, found, _ = url.partition("://")
    begins = f"begins with {scheme[:20]!r}" if found else "is no URL"  # the rest may be a password
    raise InvalidInputError(
        f"database_url {begins}; it has to be postgresql://user@host/database or "
        "sqlite:///path/to/file.db"
    )


def _split_postgres(url: str) -> tuple[str, list[str]]:
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
    shown_options = urlencode([one for one in options if one[0] not in _SECRET_OPTIONS])
    place = f"{user}@{server}" if user else server
    # Not `urlunsplit`: it leaves out the slashes before a server that is not named.
    shown = f"postgresql://{place}{parts.path}" + (f"?{shown_options}" if shown_options else "")
    return shown, [*([unquote(password)] if password else []), *secrets]
