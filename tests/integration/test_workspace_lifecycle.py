"""Which workspaces stay, which are orphans, and what is in each of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from wtb_prefect import Case, TestBench, WorkflowProject, current_workspace
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.project import KEEP_WORKSPACES, KeepWorkspaces
from wtb_prefect.errors import NotFoundError
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces

MAKER = """
import sys, time
from pathlib import Path
from wtb_prefect.infrastructure.file_tracking import LocalBlobStore, LocalFileTracker
from wtb_prefect.infrastructure.workspace import FolderWorkspaces
root = Path(sys.argv[1])
workspaces = FolderWorkspaces(root / "w", LocalFileTracker(LocalBlobStore(root / "store")))
for name in ("orphan", "kept"):
    workspace = workspaces.open(name, "a=b/case-1", {})
    (workspace.path() / "file").write_text("left")
    if name == "kept":
        workspace.keep()
print("made", flush=True)
time.sleep(60)
"""


@pytest.fixture
def workspaces(tmp_path: Path) -> FolderWorkspaces:
    return FolderWorkspaces(tmp_path / "w", LocalFileTracker(LocalBlobStore(tmp_path / "store")))


@pytest.fixture
def left(tmp_path: Path, workspaces: FolderWorkspaces) -> Path:
    """The workspace of a process that was killed, beside one that it had kept."""
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        assert workspaces.clean_orphans(grace_seconds=0) == []
        process.send_signal(signal.SIGKILL)
    return tmp_path / "w/a=b/case-1-orphan"


def record_of(folder: Path) -> Path:
    return folder.parents[1].with_name("w-owners") / f"{folder.name}.json"


def test_the_workspace_of_a_dead_process_is_cleaned_after_the_grace_period(
    left: Path, workspaces: FolderWorkspaces
) -> None:
    assert workspaces.clean_orphans() == []
    assert (left / "file").read_text() == "left"
    assert workspaces.clean_orphans(grace_seconds=0) == [left]
    assert not left.exists()
    assert not record_of(left).exists()
    assert (left.with_name("case-1-kept") / "file").exists()
    assert workspaces.clean_orphans(grace_seconds=0) == []


def test_the_grace_period_begins_with_the_last_write(
    left: Path, workspaces: FolderWorkspaces
) -> None:
    (left / "deep").mkdir()
    assert workspaces.clean_orphans(grace_seconds=30) == []
    assert left.exists()


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"workspace": "../store"}, {"pid": []}])
def test_what_is_of_another_host_or_makes_no_sense_is_left_alone(
    left: Path, workspaces: FolderWorkspaces, change: dict[str, object]
) -> None:
    record = json.loads(record_of(left).read_text())
    assert record["host"] == socket.gethostname()
    record_of(left).write_text(json.dumps({**record, **change}))
    assert workspaces.clean_orphans(grace_seconds=0) == []
    assert left.exists()
    assert (left.parents[2] / "store/objects").exists()


def test_a_process_id_used_again_is_another_process(
    left: Path, workspaces: FolderWorkspaces
) -> None:
    record = json.loads(record_of(left).read_text())
    record_of(left).write_text(json.dumps({**record, "pid": os.getpid()}))
    assert workspaces.clean_orphans(grace_seconds=0) == [left]


def test_who_goes_on_with_an_orphan_owns_it(left: Path, workspaces: FolderWorkspaces) -> None:
    again = workspaces.open("orphan", "a=b/case-1", {})
    assert again.path() == left
    assert workspaces.clean_orphans(grace_seconds=0) == []
    again.remove()
    assert not record_of(left).exists()


class State(TypedDict, total=False):
    fail: bool
    seen: list[str]


def work(state: State) -> dict[str, Any]:
    folder = current_workspace()
    (folder / "made").write_text("1")
    if state.get("fail"):
        raise ValueError("as asked")
    return {"seen": sorted(path.name for path in folder.iterdir())}


def graph() -> Any:
    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    builder.add_edge("work", END)
    return builder


Run = Callable[[KeepWorkspaces], list[Execution]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a cell that completes and one that fails; gives their executions."""
    (tmp_path / "base/inputs").mkdir(parents=True)
    (tmp_path / "base/outputs").mkdir()
    (tmp_path / "base/other").mkdir()
    (tmp_path / "base/inputs/data").write_text("1")

    def call(policy: KeepWorkspaces) -> list[Execution]:
        project = WorkflowProject(
            "lifecycle",
            graph,
            db_path=tmp_path / "l.db",
            output_dir=tmp_path / "out",
            workspace=tmp_path / "base",
            keep_workspaces=policy,
        )
        with TestBench(project) as bench:
            cases = [Case(id="good", state={"fail": False}), Case(id="bad", state={"fail": True})]
            result = bench.batch(cases=cases, runner="inline")
            with bench.session.open_uow() as uow:
                return sorted(
                    uow.executions.list(batch_id=result.batch_id), key=lambda e: str(e.case_id)
                )

    return call


@pytest.mark.parametrize(
    ("policy", "stay"), [("failed", ["bad"]), ("always", ["bad", "good"]), ("never", [])]
)
def test_what_stays_is_recorded_and_no_orphan(
    run: Run, tmp_path: Path, policy: KeepWorkspaces, stay: list[str]
) -> None:
    bad, good = run(policy)
    folders = sorted(path.name for path in (tmp_path / "out/workspaces").glob("*/*"))
    assert [name.split("-")[0] for name in folders] == stay
    assert [e.case_id for e in (bad, good) if e.metadata["workspace_kept"]] == stay
    assert {e.metadata["workspace"] for e in (bad, good)} <= {"copy", "reflink"}
    assert not list((tmp_path / "out/workspaces-owners").glob("*.json"))


def test_inputs_and_outputs_are_there_also_when_empty(run: Run, tmp_path: Path) -> None:
    run("always")
    for folder in (tmp_path / "out/workspaces").glob("*/*"):
        assert sorted(path.name for path in folder.iterdir()) == ["inputs", "made", "outputs"]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(NotFoundError, match=f"keep_workspaces.*{KEEP_WORKSPACES[0]}"):
        WorkflowProject("p", graph, keep_workspaces="sometimes")  # type: ignore[arg-type]


def test_a_kept_workspace_that_is_put_back_is_still_kept(
    tmp_path: Path, workspaces: FolderWorkspaces
) -> None:
    """Also where it has to be made anew: it is not an orphan once its maker is dead."""
    kept = workspaces.open("e-1", "case", {})
    os.mkfifo(kept.path() / "fifo")
    kept.keep()
    assert workspaces.open("e-1", "case", {}).put_back() is not None
    assert list(kept.path().parent.glob("*")) == [tmp_path / "w/case-e-1"]
    assert not list((tmp_path / "w-owners").glob("*.json"))
