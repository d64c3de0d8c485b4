"""The Prefect and Ray machinery with real servers, real Ray and real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from wtb_prefect.api.prefect_segments import PrefectSegmentRunner, drain_worker_queues
from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner
from wtb_prefect.api.server import PrefectServer, prefect_server
from wtb_prefect.domain.interfaces.segment_runner import SegmentRunner
from wtb_prefect.errors import InfrastructureError, NotFoundError

HERE = Path(__file__).parent
# Ray workers get this process's search path; the stand-ins must be importable there.
sys.path.insert(0, str(HERE))
import prefect_standins as standins  # noqa: E402

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(180),
    # Prefect leaves client sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RUN_IN_A_PROCESS = """
import sys
from pathlib import Path
from wtb_prefect.api.server import prefect_server
import prefect_standins

with prefect_server(Path(sys.argv[1])):
    prefect_standins.batch([["hang:" + sys.argv[2]], ["sleep:300"]])
"""

SERVER_IN_A_PROCESS = """
import sys, time
from pathlib import Path
from wtb_prefect.api.server import prefect_server

with prefect_server(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(300)
"""

WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
from wtb_prefect.errors import InfrastructureError
try:
    from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner
    SegmentRayTaskRunner().start()
except InfrastructureError as error:
    print(error)
"""

RAY_IMPORTED_BEFORE = """
import ray
assert ray._raylet
from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner
with SegmentRayTaskRunner(num_cpus=1) as runner:
    runner.start()
    print(ray.get_runtime_context().gcs_address.rpartition(":")[0])
    raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    environment = open(f"/proc/{raylet}/environ").read().split(chr(0))
    print(*sorted({"DO_NOT_TRACK=1", "RAY_USAGE_STATS_ENABLED=0"} & set(environment)))
"""


@pytest.fixture
def connected(server: PrefectServer) -> Iterator[PrefectServer]:
    """The settings of the module's server (pytest runs fixtures of a module in another context)."""
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server


def task_runs(server: PrefectServer, flow_run_id: str) -> dict[str, str]:
    answer = httpx.post(
        f"{server.url}/task_runs/filter",
        json={"flow_runs": {"id": {"any_": [flow_run_id]}}},
    )
    return {run["name"]: run["state_name"] for run in answer.json()}


def logged(server: PrefectServer, flow_run_id: str) -> list[str]:
    answer = httpx.post(
        f"{server.url}/logs/filter",
        json={"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "limit": 200},
    )
    return [entry["message"] for entry in answer.json()]


def eventually(check: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def descendants(pid: int) -> set[int]:
    """All processes below `pid`, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {pid}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    search_path = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PREFECT_API_URL", "RAY_ADDRESS")
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**environment, "PYTHONPATH": os.pathsep.join(search_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def hanging_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with its own server and its own Ray, in the middle of two chunks."""
    process = python(RUN_IN_A_PROCESS, str(tmp_path / "home"), str(tmp_path / "running"))
    below: set[int] = set()
    try:
        assert eventually((tmp_path / "running").exists, 120)
        time.sleep(1)  # the Running events leave the workers
        below = descendants(process.pid)
        yield process
    finally:
        process.kill()
        process.wait()
        for pid in filter(alive, below):
            os.kill(pid, signal.SIGKILL)


def test_it_is_a_segment_runner() -> None:
    runner: SegmentRunner = PrefectSegmentRunner(standins.run_chunk, parameters={}, slots=3)
    assert (runner.slots, runner.in_flight) == (3, 0)


def test_a_server_that_does_not_answer_is_one_clear_line() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(InfrastructureError, match="unset PREFECT_API_URL") as caught,
        prefect_server(),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_configured_server_is_used_as_it_is(connected: PrefectServer, tmp_path: Path) -> None:
    with prefect_server(tmp_path / "unused") as used:
        assert (used.url, used.started_here) == (connected.url, False)
    assert not (tmp_path / "unused").exists()
    assert httpx.get(f"{connected.url}/health").status_code == 200


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processor time from /proc")
def test_a_server_with_nothing_to_do_leaves_the_processor_alone(server: PrefectServer) -> None:
    """One of its services may turn without a pause, which costs a core for the whole run."""

    def busy() -> float:
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def share_of_a_core() -> float:
        before, begun = busy(), time.monotonic()
        time.sleep(1.0)
        return (busy() - before) / (time.monotonic() - begun)

    assert eventually(lambda: share_of_a_core() < 0.15, seconds=30.0)


def test_ray_refuses_to_run_without_a_server() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(InfrastructureError, match="PREFECT_API_URL"),
        SegmentRayTaskRunner() as runner,
    ):
        runner.start()


def test_missing_ray_is_one_clear_line() -> None:
    output, _ = python(WITHOUT_RAY).communicate(timeout=60)
    assert "Ray is not installed: pip install" in output.strip().splitlines()[-1]


def test_chunks_on_threads(connected: PrefectServer) -> None:
    on_threads = standins.batch.with_options(task_runner=ThreadPoolTaskRunner(max_workers=2))
    report = on_threads([["a", "b"], ["sleep:0.5"], ["c"]])
    assert (report["executed"], report["lost"]) == (4, [])
    assert report["ticks"] >= 5, "the event loop was blocked while a chunk ran"
    drain_worker_queues()
    assert eventually(
        lambda: set(task_runs(connected, report["flow_run_id"]).values()) == {"Completed"}
    )
    assert sorted(task_runs(connected, report["flow_run_id"])) == [
        "segments 1 (2 items)",
        "segments 2 (1 item)",
        "segments 3 (1 item)",
    ]


def test_the_sync_flow_works_inside_a_running_loop(connected: PrefectServer) -> None:
    on_threads = standins.batch.with_options(task_runner=ThreadPoolTaskRunner(max_workers=2))

    async def notebook_cell() -> dict[str, Any]:
        return dict(on_threads([["a"], ["b"]]))

    assert asyncio.run(notebook_cell())["executed"] == 2


def test_the_flow_runs_the_cells_it_is_told_to(connected: PrefectServer, tmp_path: Path) -> None:
    """`only` is kept with the batch; {} takes it back."""
    from wtb_prefect import batch_test

    (tmp_path / "bench.py").write_text((HERE.parents[1] / "examples/minimal/bench.py").read_text())
    on_threads = batch_test.with_options(task_runner=ThreadPoolTaskRunner(max_workers=2))
    project = f"{tmp_path / 'bench.py'}:project"
    cases = [{"id": name, "state": {"name": name}, "expected": ""} for name in ("Ada", "Alan")]

    def counts(**parameters: Any) -> tuple[str, dict[str, int]]:
        summary = on_threads(project, batch_id="some", **parameters)
        return summary["status"], summary["cells"]

    partly = ("partial", {"completed": 2, "pending": 2})
    assert counts(matrix={"greet": "*"}, cases=cases, only={"limit": 1}) == partly
    assert counts() == partly
    assert counts(only={}) == ("completed", {"completed": 4})
    with pytest.raises(NotFoundError, match="no case 'Alan Turing'"):
        counts(only={"cases": ["Alan Turing"]})


def test_an_error_of_the_task_is_raised(connected: PrefectServer) -> None:
    on_threads = standins.batch.with_options(task_runner=ThreadPoolTaskRunner(max_workers=2))
    with pytest.raises(ValueError, match="boom"):
        on_threads([["fail:boom"]])


@pytest.mark.ray
def test_a_private_ray_lives_as_long_as_its_flow_and_loses_nothing(
    connected: PrefectServer,
) -> None:
    import ray

    async def notebook_cell() -> dict[str, Any]:
        # In a running loop the core runs in a thread of its own, which starts Ray, and ends first.
        return dict(standins.batch([["a", "b"], ["c"], ["d", "last"]]))

    report = asyncio.run(notebook_cell())
    assert not ray.is_initialized()
    assert (report["executed"], report["lost"]) == (5, [])
    assert eventually(
        lambda: list(task_runs(connected, report["flow_run_id"]).values()) == ["Completed"] * 3
    )
    items = [line for line in logged(connected, report["flow_run_id"]) if line.startswith("item")]
    assert sorted(items) == ["item a", "item b", "item c", "item d", "item last"]


@pytest.mark.ray
def test_a_dead_worker_is_lost_items_and_a_crashed_task_run(
    connected: PrefectServer, ray: Any
) -> None:
    report = standins.batch([["a"], ["kill", "beside"], ["b"], ["unreachable:no database"]])
    assert ray.is_initialized(), "a Ray that the flow did not start was stopped"
    assert report["executed"] == 2
    assert sorted(report["lost"]) == ["beside", "kill", "unreachable:no database"]
    assert sorted("WorkerCrashedError" in reason for reason in report["reasons"]) == [False, True]
    expected = {
        "segments 1 (1 item)": "Completed",
        "segments 2 (2 items)": "Crashed",
        "segments 3 (1 item)": "Completed",
        "segments 4 (1 item)": "Failed",
    }
    assert eventually(lambda: task_runs(connected, report["flow_run_id"]) == expected)
    time.sleep(2)  # a late event of the dead worker must not bring Running back
    assert task_runs(connected, report["flow_run_id"]) == expected


@pytest.mark.ray
def test_the_async_flow_works_too(connected: PrefectServer, ray: Any) -> None:
    report: dict[str, Any] = asyncio.run(standins.async_batch([["a"], ["b"], ["sleep:1"]]))
    assert (report["executed"], report["lost"]) == (3, [])
    assert report["ticks"] >= 10


@pytest.mark.ray
def test_a_private_ray_is_private_whoever_has_imported_ray_before(server: PrefectServer) -> None:
    """On loopback, without telemetry."""
    done = subprocess.run(
        [sys.executable, "-c", RAY_IMPORTED_BEFORE],
        env=os.environ | {"PREFECT_API_URL": server.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    expected = "127.0.0.1\nDO_NOT_TRACK=1 RAY_USAGE_STATS_ENABLED=0\n"
    assert done.stdout == expected, done.stderr


@pytest.mark.ray
def test_ctrl_c_leaves_no_process_and_no_running_task_run(
    hanging_run: subprocess.Popen[str], tmp_path: Path
) -> None:
    below = descendants(hanging_run.pid)
    assert len(below) > 3  # server, GCS, raylet, workers
    os.kill(hanging_run.pid, signal.SIGINT)
    output, _ = hanging_run.communicate(timeout=60)
    assert hanging_run.returncode != 0
    assert eventually(lambda: not any(map(alive, below))), output
    with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
        states = database.execute("select state_type from task_run").fetchall()
    assert states == [("CRASHED",), ("CRASHED",)], output


def test_kill_9_takes_the_server_along(tmp_path: Path) -> None:
    process = python(SERVER_IN_A_PROCESS, str(tmp_path))
    assert process.stdout
    server_pid = int(process.stdout.readline())
    assert alive(server_pid)
    process.kill()
    process.communicate()
    assert eventually(lambda: not alive(server_pid))
