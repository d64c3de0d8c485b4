"""Servers that others on the network can use without proving who they are.

Both run what they are told: a Prefect server starts flows, Ray runs any code.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `ok`, `warning` or `broken`."""

    name: str
    status: str
    value: str
    note: str = ""


def open_to_others() -> Iterator[Check]:
    """What is reachable from elsewhere and lets anybody in; nothing where all is well."""
    host = os.environ.get("PREFECT_SERVER_API_HOST", "127.0.0.1")
    if not _is_here(host) and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        note = "a server started here lets anybody in: set PREFECT_SERVER_API_AUTH_STRING"
        yield Check("PREFECT_SERVER_API_HOST", "broken", host, note)
    url = os.environ.get("PREFECT_API_URL", "")
    if not _is_here(urlsplit(url).hostname) and _lets_anybody_in(url):
        note = "this server lets anybody in: give it an auth string"
        yield Check("Prefect authentication", "warning", url, note)
    address = os.environ.get("RAY_ADDRESS", "")
    where = urlsplit(address if "://" in address else f"ray://{address}").hostname
    if not _is_here(where) and os.environ.get("RAY_AUTH_MODE") != "token":
        note = "whoever reaches it can run code: set RAY_AUTH_MODE=token"
        yield Check("Ray authentication", "warning", address, note)
    dashboard = os.environ.get("RAY_DASHBOARD_HOST", "127.0.0.1")
    if not _is_here(dashboard):
        note = "whoever reaches the dashboard can run code"
        yield Check("RAY_DASHBOARD_HOST", "warning", dashboard, note)


def _is_here(host: str | None) -> bool:
    """Whether only this machine reaches it; so it is with names that stand for no address."""
    if not host or host in ("localhost", "auto", "local"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name of another machine


def _lets_anybody_in(url: str) -> bool:
    if urlsplit(url).scheme not in ("http", "https"):
        return False
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/admin/version", timeout=_SECONDS):  # noqa: S310 - http, as checked
            return True
    except (urllib.error.HTTPError, OSError, ValueError):
        return False
