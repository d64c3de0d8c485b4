"""The import path under which another process finds a function."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

BY_FILE = "wtb_project_"
"""Modules of project files have names that begin like this; they are found by their file."""


def reference_to(thing: Any) -> str | None:
    """`module:name` or `file.py:name`; None for what is not at the top level of a module, or of a
    notebook."""
    name = getattr(thing, "__qualname__", None)
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    if name is None or module is None or getattr(module, name, None) is not thing:
        return None
    if module.__name__ == "__main__" or module.__name__.startswith(BY_FILE):
        file = getattr(module, "__file__", None)
        return f"{Path(file).absolute()}:{name}" if file else None
    return f"{module.__name__}:{name}"
