"""From `file.py:project` to a project, or to no more of it than its ledger.

Looking at results must be quick, and importing a project means importing LangGraph: where a
project keeps its things is therefore remembered in the user's cache folder. What is remembered
holds only while the project's own files and the environment are the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wtb_prefect import __version__
from wtb_prefect.domain.identifiers import digest
from wtb_prefect.domain.project import ProjectDefinition, ProjectLocations
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.database.address import has_password

if TYPE_CHECKING:
    from wtb_prefect.sdk.workflow_project import WorkflowProject

_PACKAGE = Path(__file__).resolve().parents[1]

# They differ between two commands, or two terminals, and say nothing of a project.
_PASSING = (
    *("_", "PWD", "OLDPWD", "SHLVL", "TERM", "TERM_PROGRAM", "TERM_SESSION_ID", "COLORTERM"),
    *("COLUMNS", "LINES", "NO_COLOR", "WINDOWID", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY"),
    *("TMUX", "TMUX_PANE", "STY", "XDG_SESSION_ID"),
    *("PYTHONPROFILEIMPORTTIME", "PYTHONUNBUFFERED", "PYTHONVERBOSE"),
)

_KEPT_SECONDS = 30 * 24 * 3600


def load_project(asked: str) -> WorkflowProject:
    """Imports a project; the current directory is importable.

    Raises:
        NotFoundError: no such file, module or attribute.
        GraphError: it raised while it was imported.
        InvalidInputError: the name is not one of a project, or something else is there.
    """
    from wtb_prefect.infrastructure.workflow.graph_source import (  # noqa: PLC0415 - LangGraph
        load_attribute,
    )
    from wtb_prefect.sdk.workflow_project import WorkflowProject  # noqa: PLC0415 - may not be needed

    if not all(asked.partition(":")):
        raise InvalidInputError(
            f"{asked!r} does not name a project: write path/to/file.py:project or "
            "package.module:project"
        )
    _importable_here()
    before = set(sys.modules)
    found = load_attribute(asked)
    if not isinstance(found, WorkflowProject):
        raise InvalidInputError(f"{asked} is a {type(found).__name__}, not a WorkflowProject")
    _remember(asked, found, set(sys.modules) - before)
    return found


def find_project(asked: str) -> ProjectDefinition:
    """Name and places of a project, without its graph. Raises as `load_project`."""
    remembered = _recall(asked)
    if remembered is not None:
        return remembered
    project = load_project(asked)
    return _without_graph(project.name, project.locations)


def _importable_here() -> None:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def _without_graph(name: str, locations: ProjectLocations) -> ProjectDefinition:
    return ProjectDefinition(
        name=name, graph=None, import_path=None, variants=(), evaluators=(), locations=locations
    )


def _remember(asked: str, project: WorkflowProject, modules: Iterable[str]) -> None:
    files = _own_files(modules)
    if not files or has_password(project.locations.database_url):
        # Imported earlier in this process: its files are not known. Or only the import knows the
        # password of its database.
        return
    entry = {
        "files": {file: _signature(file) for file in files},
        "name": project.name,
        "locations": project.locations.to_json(),
    }
    with contextlib.suppress(OSError, RuntimeError):  # no cache is no harm
        _write(_entry_file(asked), json.dumps(entry))


def _recall(asked: str) -> ProjectDefinition | None:
    try:
        entry: Mapping[str, Any] = json.loads(_entry_file(asked).read_text(encoding="utf-8"))
        same = all(_signature(file) == known for file, known in entry["files"].items())
        locations = ProjectLocations.from_json(entry["locations"])
        return _without_graph(entry["name"], locations) if same else None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return None  # none, or not one that this version has written


def _own_files(modules: Iterable[str]) -> list[str]:
    """The files of modules that are neither installed nor part of Python or of this package."""
    places = (sys.prefix, sys.base_prefix, str(_PACKAGE))
    found = (getattr(sys.modules.get(name), "__file__", None) for name in modules)
    return sorted(
        file
        for file in found
        if file and not file.startswith(places) and "site-packages" not in file
    )


def _signature(file: str) -> list[int]:
    stat = os.stat(file)
    return [stat.st_mtime_ns, stat.st_size]


def _entry_file(asked: str) -> Path:
    """One entry for all that may decide where a project keeps its things, its own files apart."""
    variables = sorted(item for item in os.environ.items() if item[0] not in _PASSING)
    name = digest(asked, os.getcwd(), variables, __version__, sys.version, sys.prefix)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wtb-prefect" / f"{name}.json"


def _write(file: Path, text: str) -> None:
    """At once or not at all: two commands may write the same entry."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for old in file.parent.iterdir():
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            old.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as part:
        part.write(text)
    os.replace(part.name, file)
