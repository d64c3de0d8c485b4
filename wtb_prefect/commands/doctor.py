"""`wtb doctor`: what this machine has, and what of it would be in the way."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from rich.text import Text

from wtb_prefect.bootstrap.look_at_database import look_at_database
from wtb_prefect.commands.exposure import Check, open_to_others
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import find_project
from wtb_prefect.errors import WTBError
from wtb_prefect.infrastructure.database.address import DATABASE_URL
from wtb_prefect.infrastructure.file_tracking.file_system import copy_strategy
from wtb_prefect.infrastructure.workspace.overlays import why_no_overlays
from wtb_prefect.sdk.database_place import database_of
from wtb_prefect.terminal import make_table

ANSWER_SECONDS = 2.0
LOW_DISK = 1 << 30
NO_DISK = 100 << 20

_NEEDED = (
    "prefect",
    "prefect-ray",
    "ray",
    "fastapi",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite",
    "sqlalchemy",
    "alembic",
    "pydantic",
    "rich",
)
_STYLES = {"ok": "green", "warning": "yellow", "broken": "bold red"}


def doctor(args: Namespace, out: Output) -> int:
    """Looks at versions, servers and places; 4 if something needed is missing or broken."""
    where = find_project(args.project).locations if args.project else None
    folder = Path(".wtb") if where is None else where.output_dir
    database = _database(None if where is None else where.database_url)
    checks = [
        *(*_versions(), database, _prefect_api(), _ray_address(), *open_to_others()),
        *_place(folder.absolute()),
    ]
    table = make_table("", "what", "found", "note")
    for check in checks:
        status = Text(check.status, style=_STYLES[check.status])
        table.add_row(status, check.name, Text(check.value), Text(check.note))
    out.show(table)
    broken = [check.name for check in checks if check.status == "broken"]
    if broken:
        out.say(f"missing or broken: {', '.join(broken)}")
    out.data({"healthy": not broken, "checks": checks})
    return 4 if broken else 0


def _versions() -> Iterator[Check]:
    python = platform.python_version()
    supported = (3, 11) <= sys.version_info < (3, 14)
    yield (
        Check("python", "ok", python)
        if supported
        else Check("python", "warning", python, "tested with 3.11 to 3.13")
    )
    yield from (_package(name) for name in _NEEDED)
    yield _demo()
    yield _postgres()
    library = sqlite3.sqlite_version
    old = sqlite3.sqlite_version_info < (3, 51, 3)
    note = "before 3.51.3 two writers can in theory corrupt a WAL" if old else ""
    yield Check("sqlite library", "ok", library, note)


def _package(name: str) -> Check:
    version = _version(name)
    if version is None:
        return Check(name, "broken", "not installed", "pip install wtb-prefect")
    if name == "fastapi" and _numbers(version) >= (0, 151):
        return Check(name, "warning", version, "Prefect's server fails with 0.151 and later")
    return Check(name, "ok", version)


def _demo() -> Check:
    version = _version("rank-bm25")
    note = "" if version else "only `wtb demo` needs it: pip install 'wtb-prefect[demo]'"
    return Check("rank-bm25", "ok", version or "not installed", note)


def _postgres() -> Check:
    name = "langgraph-checkpoint-postgres"
    version = _version(name)
    note = "" if version else "only PostgreSQL needs it: pip install 'wtb-prefect[postgres]'"
    return Check(name, "ok", version or "not installed", note)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _database(url: str | None) -> Check:
    """A project's, or that of projects that do not say where theirs is."""
    try:
        url = database_of(None, None)[0] if url is None else url
        found = look_at_database(url)
    except WTBError as exc:
        return Check("database", "broken", url or f"{DATABASE_URL} is set", str(exc))
    if found is None:
        return Check("database", "ok", url, "not there yet: made by the first run")
    if found.is_newer:
        note = f"its ledger has version {found.ledger}: use the newer wtb-prefect that wrote it"
        return Check("database", "broken", url, f"{found.server} answers, {note}")
    ledger = "no ledger yet" if found.ledger is None else f"ledger version {found.ledger}"
    return Check("database", "ok", url, f"{found.server} answers, {ledger}")


def _prefect_api() -> Check:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Check("PREFECT_API_URL", "ok", "not set", "a server is started for each run")
    if urlsplit(url).scheme not in ("http", "https"):
        return Check("PREFECT_API_URL", "broken", url, "not an http address")
    try:
        health = f"{url.rstrip('/')}/health"
        with urllib.request.urlopen(health, timeout=ANSWER_SECONDS):  # noqa: S310 - http, as checked
            return Check("PREFECT_API_URL", "ok", url, "answers")
    except urllib.error.HTTPError as exc:
        return Check("PREFECT_API_URL", "warning", url, f"answers with HTTP {exc.code}")
    except (OSError, ValueError) as exc:
        return Check("PREFECT_API_URL", "broken", url, f"does not answer: {exc}")


def _ray_address() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return Check("RAY_ADDRESS", "ok", "not set", "Ray is started for each run")
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
        if host is None or port is None:  # `auto`, `local`: Ray itself finds out
            return Check("RAY_ADDRESS", "ok", address)
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except (OSError, ValueError) as exc:
        return Check("RAY_ADDRESS", "broken", address, f"does not answer: {exc}")
    return Check("RAY_ADDRESS", "ok", address, "answers")


def _place(folder: Path) -> Iterator[Check]:
    """The nearest folder that exists stands for one that a run would make."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            yield Check("output folder", "ok", str(folder), "writable")
    except OSError as exc:
        yield Check("output folder", "broken", str(folder), f"not writable: {exc}")
    how = copy_strategy(there, there)
    note = "large files cost nothing" if how == "reflink" else "the file system has no clones"
    yield Check("workspaces made by", "ok", how, note)
    why_not = why_no_overlays(there)
    can = "cannot be mounted" if why_not else "can be mounted"
    yield Check("overlay workspaces", "ok", can, why_not or "workspace_strategy='overlay'")
    free = shutil.disk_usage(there).free
    status = "broken" if free < NO_DISK else "warning" if free < LOW_DISK else "ok"
    yield Check("free disk", status, f"{free / (1 << 30):.1f} GB")
