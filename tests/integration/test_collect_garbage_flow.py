"""The flow `collect_garbage` on a real Prefect server, and `wtb gc` in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from line_project import CASES, MATRIX

from wtb_prefect import TestBench
from wtb_prefect.application.delete_batch import delete_batch
from wtb_prefect.bootstrap.stores import open_stores
from wtb_prefect.commands.projects import load_project
from wtb_prefect.infrastructure.processes import is_alive, this_process

if TYPE_CHECKING:
    from wtb_prefect.api.server import PrefectServer

WTB = str(Path(sys.executable).with_name("wtb"))
HERE = Path(__file__).parent
PROJECT = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
from line_project import project as make_project
project = make_project(Path(__file__).parent)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a batch that was deleted two days ago and one that was not."""
    (tmp_path / "bench.py").write_text(PROJECT)
    project = load_project(f"{tmp_path}/bench.py:project")
    with TestBench(project) as bench:
        kept = bench.batch(MATRIX, CASES[:1], runner="inline", batch_id="kept")
        case = {**CASES[1], "files": {"own.txt": "what no other batch has"}}
        gone = bench.batch(MATRIX, [case], runner="inline", batch_id="gone")
        with open_stores(project.locations) as stores:
            delete_batch(gone.batch_id, this_process(), is_alive, stores)
        assert kept.cells
    then = time.time() - 2 * 24 * 3600
    for blob in (tmp_path / "out/blobs/objects").glob("??/*"):
        os.utime(blob, (then, then))
    return tmp_path


def blobs(folder: Path) -> int:
    return len(list((folder / "out/blobs/objects").glob("??/*")))


def wtb(folder: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [WTB, "gc", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def test_the_command_says_what_would_go_and_removes_it(folder: Path) -> None:
    """Commits are as old as their rows say: their contents go with a shorter grace period."""
    before = blobs(folder)
    assert json.loads(wtb(folder, "bench.py:project", "--json"))["blobs"] == 0
    time.sleep(1)
    grace = ("--grace", "0.0002")
    assert "would remove" in wtb(folder, "bench.py:project", "--dry-run", *grace)
    said = json.loads(wtb(folder, "bench.py:project", "--dry-run", "--json", *grace))
    assert blobs(folder) == before
    assert said["blobs"] > 0
    assert said["commits"] > 0
    done = json.loads(wtb(folder, "bench.py:project", "--json", *grace))
    assert done == {**said, "dry_run": False}
    assert blobs(folder) == before - done["blobs"] == done["named"]
    assert "removed 0 contents" in wtb(folder, "bench.py:project", *grace)
    assert "has to be 0 or more" in wtb(folder, "bench.py:project", "--grace", "-1", status=2)


def test_the_bench_collects_too(folder: Path) -> None:
    with TestBench(load_project(f"{folder}/bench.py:project")) as bench:
        said = bench.collect_garbage(grace=0, dry_run=True)
        assert said.blobs > 0
        assert bench.collect_garbage(grace=0).blobs == said.blobs
        assert {cell.status for cell in bench.results("kept").cells} == {"completed"}


@pytest.mark.prefect
@pytest.mark.slow
def test_the_flow_completes_with_an_artifact(server: PrefectServer, folder: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from wtb_prefect import collect_garbage

    before, project = blobs(folder), f"{folder}/bench.py:project"
    with temporary_settings({PREFECT_API_URL: server.url}):
        said: dict[str, Any] = collect_garbage(project=project, grace_hours=0, dry_run=True)
        assert blobs(folder) == before
        done: dict[str, Any] = collect_garbage(project=project, grace_hours=0)
    assert done == {**said, "dry_run": False}
    assert blobs(folder) == before - done["blobs"] < before
    with httpx.Client(base_url=server.url) as client:
        runs = client.post("/flow_runs/filter", json={}).json()
        found = client.post("/artifacts/filter", json={"sort": "CREATED_DESC"}).json()
    artifacts = [artifact for artifact in found if artifact["type"] == "markdown"]
    assert [run["state_type"] for run in runs] == ["COMPLETED"] * 2
    assert {artifact["key"] for artifact in artifacts} == {"wtb-garbage-line"}
    assert f"| contents of files | {done['blobs']} | {done['blob_bytes']} |" in artifacts[0]["data"]
