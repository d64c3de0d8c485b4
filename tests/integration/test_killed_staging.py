"""What a process leaves that is killed while it makes, changes or replaces a workspace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker, swap
from wtb_prefect.infrastructure.file_tracking.staging import maker_of
from wtb_prefect.infrastructure.workspace import FolderWorkspaces, overlays

CHILD = """
import os, sys, time
from pathlib import Path
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces
root, what = Path(sys.argv[1]), sys.argv[2]
tracker = LocalFileTracker(LocalBlobStore(root / "store"))
workspaces = FolderWorkspaces(root / "w", tracker, overlay=what == "start")
files = {m.path: m for m in tracker.store_texts((f"{n}", b"%d" % n) for n in range(20))}
workspace = workspaces.open("e-1", "a=b/case-1", files)
if what != "start":
    folder = workspace.path()
    (folder / "3").write_bytes(b"edited")
    workspace.snapshot()
calls = 0
def stopping(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == 12:
            print("there", flush=True)
            time.sleep(60)
        return real(*args, **kwargs)
    return call
if what == "update":
    for n in range(20):
        (folder / f"{n}").write_bytes(b"edited")
    os.rename = stopping(os.rename)
    workspaces.open("e-1", "a=b/case-1", files).put_back()
else:
    LocalBlobStore.copy_to = stopping(LocalBlobStore.copy_to)
    workspaces.open("e-1" if what == "fill" else "e-2", "a=b/case-1", files).path()
"""


@pytest.fixture
def killed(tmp_path: Path) -> Callable[[str], None]:
    def run(what: str) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), what], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
            # Its maker lives: it stays, however old it is.
            assert store_of(tmp_path).clean_orphans(grace_seconds=0) == []
            assert staging(tmp_path)
            process.send_signal(signal.SIGKILL)

    return run


def store_of(tmp_path: Path) -> FolderWorkspaces:
    return FolderWorkspaces(tmp_path / "w", LocalFileTracker(LocalBlobStore(tmp_path / "store")))


def staging(tmp_path: Path) -> list[str]:
    return sorted(p.name.split("-")[0] for p in tmp_path.rglob(".*") if maker_of(p.name))


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ("restore", [".restoring"]),
        ("update", [".updating"]),
        ("fill", [".replaced", ".restoring"]),
        ("start", [".restoring"]),
    ],
)
def test_what_a_killed_process_was_making_goes_after_the_grace_period(
    killed: Callable[[str], None], tmp_path: Path, what: str, left: list[str]
) -> None:
    if what == "start" and (reason := overlays.why_no_overlays(tmp_path)) is not None:
        pytest.skip(reason)
    killed(what)
    assert staging(tmp_path) == left
    workspaces = store_of(tmp_path)
    workspaces.clean_orphans(grace_seconds=30)
    assert staging(tmp_path) == left
    workspaces.clean_orphans(grace_seconds=0)
    assert not list((tmp_path / "w").glob("*"))
    assert not staging(tmp_path)


def test_it_goes_also_when_the_execution_went_on(
    killed: Callable[[str], None], tmp_path: Path
) -> None:
    killed("fill")
    workspaces = store_of(tmp_path)
    workspace = workspaces.open("e-1", "a=b/case-1", {})
    folder = workspace.path()
    workspace.keep()
    cleaned = workspaces.clean_orphans(grace_seconds=0)
    assert sorted(path.name.split("-")[0] for path in cleaned) == [".replaced", ".restoring"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_process_id_used_again_is_another_maker(
    killed: Callable[[str], None], tmp_path: Path
) -> None:
    killed("restore")
    [left] = (tmp_path / "w/a=b").glob(".restoring-*")
    _, _, started, token = left.name.split("-")
    again = left.rename(left.with_name(f".restoring-{os.getpid()}-{started}-{token}"))
    assert again in store_of(tmp_path).clean_orphans(grace_seconds=0)


def test_what_nothing_else_holds_is_left_alone(
    killed: Callable[[str], None], tmp_path: Path
) -> None:
    """An update that could not be taken back, and folders of others whose names are alike."""
    killed("update")
    [left] = (tmp_path / "w/a=b").glob(".updating-*")
    (left / "old").rename(left / swap.HALF_CHANGED)
    (tmp_path / "w/.restoring-mine").mkdir()
    store_of(tmp_path).clean_orphans(grace_seconds=0)
    assert (left / swap.HALF_CHANGED).is_dir()
    assert (tmp_path / "w/.restoring-mine").is_dir()
