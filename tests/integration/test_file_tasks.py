"""The tasks of files in a flow of a user's own, with a real Prefect server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_RESULTS_PERSIST_BY_DEFAULT,
    temporary_settings,
)

from wtb_prefect import (
    WtbCheckpointStore,
    WtbFileTracker,
    WtbWorkspace,
    commit_files,
    fork_workspace,
    restore_files,
)
from wtb_prefect.api.server import PrefectServer
from wtb_prefect.errors import FileTrackingError

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(180),
    # Prefect leaves client sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@flow
def my_flow(folder: str) -> dict[str, Any]:
    """Commits twice with a change between, goes back, forks."""
    tracker, workspace = WtbFileTracker.load("mine"), WtbWorkspace.load("mine")
    assert isinstance(tracker, WtbFileTracker)
    assert isinstance(workspace, WtbWorkspace)
    first = commit_files(folder, tracker)
    (Path(folder) / "a").write_text("later")
    (Path(folder) / "new").write_text("later")
    second = commit_files(folder, tracker)
    restore_files(first, folder, tracker)
    forked = fork_workspace.submit(second, "mine/second", workspace).result()
    return {"first": first, "second": second, "forked": forked}


def test_files_in_a_flow_of_ones_own(server: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("1")
    # Where results are kept, Prefect answers a task by its inputs unless it is told not to.
    settings = {PREFECT_API_URL: server.url, PREFECT_RESULTS_PERSIST_BY_DEFAULT: True}
    with temporary_settings(settings):
        tracker = WtbFileTracker(blob_folder=str(tmp_path / "blobs"))
        tracker.save("mine")
        WtbWorkspace(folder=str(tmp_path / "w"), file_tracker=tracker).save("mine")
        result = my_flow(str(tmp_path / "data"))
        assert {p.name: p.read_text() for p in (tmp_path / "data").iterdir()} == {"a": "1"}
        forked = {p.name: p.read_text() for p in result["forked"].iterdir()}
        assert forked == {"a": "later", "new": "later"}
        blob = result["first"]["files"][0]["blob_id"]
        (tmp_path / "blobs/objects" / blob[:2] / blob[2:]).unlink()
        with pytest.raises(FileTrackingError, match=f"'a'.*{blob}"):
            flow(restore_files.fn)(result["first"], str(result["forked"]), tracker)


def test_the_local_blocks_are_saved(server: PrefectServer) -> None:
    with temporary_settings({PREFECT_API_URL: server.url}):
        script = Path(__file__).parents[2] / "blocks" / "save_local.py"
        environment = {"PREFECT_API_URL": server.url, "HOME": str(Path.home()), "PATH": ""}
        subprocess.run([sys.executable, str(script)], check=True, env=environment)
        for block in (WtbCheckpointStore, WtbFileTracker, WtbWorkspace):
            assert isinstance(block.load("local"), block)
