"""Telling that nodes wrote beside their workspaces."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from wtb_prefect.errors import FilesOutsideWarning

SHOWN_FILES = 5


def warn_of_files_outside(names: Collection[str]) -> None:
    """One warning for a batch, with a few of the names; none if there are none."""
    if not names:
        return
    shown = sorted(names)[:SHOWN_FILES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    warnings.warn(
        f"while nodes ran, these changed in the current directory: {', '.join(shown)}{more}. If a "
        "node writes them, they are shared by all cells and not kept: write them below "
        'current_workspace(), or give the project cwd="workspace"',
        FilesOutsideWarning,
        stacklevel=2,
    )
