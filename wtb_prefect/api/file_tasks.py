"""Prefect tasks that commit, restore and fork files, for any flow.

They are never answered from Prefect's cache: the same folder may hold something else by now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from wtb_prefect.api.file_blocks import WtbFileTracker, WtbWorkspace


@task(name="commit-files", cache_policy=NO_CACHE)
def commit_files(folder: str | Path, tracker: WtbFileTracker | None = None) -> dict[str, Any]:
    """Stores what a folder holds and gives it as a commit, a JSON value.

    `tracker` is where contents are kept; default `.wtb/outputs/blobs`.
    """
    return (tracker or WtbFileTracker()).commit(folder)


@task(name="restore-files", cache_policy=NO_CACHE)
def restore_files(
    commit: dict[str, Any], folder: str | Path, tracker: WtbFileTracker | None = None
) -> None:
    """Makes a folder hold exactly the files of a commit: later ones go, deleted ones come back."""
    (tracker or WtbFileTracker()).restore(commit, folder)


@task(name="fork-workspace", cache_policy=NO_CACHE)
def fork_workspace(
    commit: dict[str, Any], name: str, workspace: WtbWorkspace | None = None
) -> Path:
    """Gives a new folder with the files of a commit; it stays until you delete it."""
    return (workspace or WtbWorkspace()).fork(commit, name)
