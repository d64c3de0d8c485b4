"""Under which name another process can import what this one has defined."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True, slots=True)
class ProjectPlace:
    """`module:attribute` or `file.py:attribute`, or else the reason why there is none."""

    import_path: str | None
    reason: str | None = None


def locate_project(project: object, module_name: str) -> ProjectPlace:
    """Where a project is that was made by code of the module of this name."""
    module = sys.modules.get(module_name)
    if module is None:
        return ProjectPlace(None, f"was made by exec() in {module_name!r}, which is no module")
    names = [name for name, value in vars(module).items() if value is project]
    file = _file_of(module)
    by_file = module_name == "__main__" or module_name.startswith("wtb_project_")
    if by_file and file is None:
        return ProjectPlace(None, f"was defined in {_without_file()}")
    if not names:
        where = file if by_file else module_name
        return ProjectPlace(None, f"is not a name at the top level of {where}")
    return ProjectPlace(f"{file if by_file else module_name}:{names[0]}")


def _file_of(module: ModuleType) -> Path | None:
    """The file that has the module's code; notebooks and prompts have none."""
    file = getattr(module, "__file__", None)
    path = Path(file).absolute() if file else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _without_file() -> str:
    if "ipykernel" in sys.modules:
        return "a notebook"
    if "IPython" in sys.modules or hasattr(sys, "ps1"):
        return "an interactive session"
    return "code that was not read from a .py file"
