"""One Prefect server for a run: the one that is configured, or one of our own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_KEEPALIVE_TIMEOUT,
    PREFECT_UI_URL,
    temporary_settings,
)

from wtb_prefect.api.prefect_segments import drain_worker_queues
from wtb_prefect.errors import InfrastructureError

DEFAULT_HOME = Path(".wtb") / "prefect"

ANSWER_SECONDS = 5.0
# A new database (migrations) on 2 cores: 15 s, loaded 33 s; an existing one: 9 s.
START_SECONDS = 120.0
START_ATTEMPTS = 2
STOP_SECONDS = 10.0

# 300 task runs: rows complete 2.6 s after the client is done instead of 16.3 s, at half the CPU.
# A short flush interval because a batch has few task runs, and a batch size is rarely reached; in
# whole seconds, because the recorder cuts it to an integer: at 0.5 it flushed without a pause, and
# the server kept one of two cores busy for as long as it ran (81 s of CPU in the demo's 150 s).
SERVER_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    # Our own home, whatever profile or database the user's shell has set for another server.
    "PREFECT_PROFILES_PATH": "",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "",
    "PREFECT_API_DATABASE_CONNECTION_URL": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectServer:
    """A Prefect server that answers."""

    url: str
    ui_url: str
    started_here: bool
    pid: int | None = None


@contextlib.contextmanager
def prefect_server(
    home: Path = DEFAULT_HOME, *, start_seconds: float = START_SECONDS
) -> Iterator[PrefectServer]:
    """The server runs are recorded on, for the time of the `with` block.

    Where `PREFECT_API_URL` is set, that server is used as it is. Otherwise one process is started
    on a free loopback port and stopped at the end; its database stays under `home`, so that runs
    can be looked at later. Inside the block `PREFECT_API_URL` is set for this process, and
    Prefect's context hands it on to workers.

    Raises:
        InfrastructureError: no answer from the configured server, or no start.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        _check_answers(configured)
        yield PrefectServer(url=configured, ui_url=_ui_url(configured), started_here=False)
        return
    with (
        _own_server(home, start_seconds) as server,
        temporary_settings({PREFECT_API_URL: server.url}),
    ):
        try:
            yield server
        finally:
            # What is still queued in this process is lost once the server is gone.
            drain_worker_queues()


def _ui_url(api_url: str) -> str:
    return str(PREFECT_UI_URL.value() or api_url.rstrip("/").removesuffix("/api"))


def _check_answers(url: str) -> None:
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=ANSWER_SECONDS)
    except httpx.HTTPError as error:
        raise InfrastructureError(
            f"no Prefect server answers at PREFECT_API_URL={url} ({type(error).__name__}): start it"
            " with `prefect server start`, or unset PREFECT_API_URL to have one started for the run"
        ) from error


@contextlib.contextmanager
def _own_server(home: Path, start_seconds: float) -> Iterator[PrefectServer]:
    with _exclusive_home(home) as (own_home, lock):
        process, url = _start(own_home, lock, start_seconds)
        try:
            yield PrefectServer(url=url, ui_url=_ui_url(url), started_here=True, pid=process.pid)
        finally:
            _stop(process)


@contextlib.contextmanager
def _exclusive_home(home: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A home no other server uses: two servers on one SQLite file lock each other out."""
    for number in range(1, 100):
        candidate = home.absolute() if number == 1 else home.absolute() / f"also-{number}"
        candidate.mkdir(parents=True, exist_ok=True)
        with (candidate / "server.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield candidate, lock
            return
    raise InfrastructureError(f"100 Prefect servers of this project run already (under {home})")


def _start(
    home: Path, lock: IO[bytes], start_seconds: float
) -> tuple[subprocess.Popen[bytes], str]:
    log = home / "server.log"
    for _ in range(START_ATTEMPTS):
        process, url = _spawn(home, lock, log)
        try:
            if _wait_healthy(process, url, start_seconds):
                return process, url
        except BaseException:  # also Ctrl-C: the process must not outlive this call
            _stop(process)
            raise
        _stop(process)
    raise InfrastructureError(
        f"the Prefect server did not start in {START_ATTEMPTS} attempts of {start_seconds:.0f} s"
        f" each: {_last_line(log)} (log: {log}); set PREFECT_API_URL to use a running server"
    )


def _spawn(home: Path, lock: IO[bytes], log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server process on a socket bound here: no other process can take the port in between."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, log.open("wb") as output:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "wtb_prefect.api.server", str(listener.fileno())],
            env=_environment(home, port),
            stdin=subprocess.PIPE,  # its end is how the server notices that this process died
            stdout=output,
            stderr=subprocess.STDOUT,
            # The lock lives as long as the server, even if this process is killed.
            pass_fds=(listener.fileno(), lock.fileno()),
            # Ctrl-C in a terminal reaches the whole group; the server must outlive the run.
            start_new_session=True,
        )
    return process, f"http://127.0.0.1:{port}/api"


def _environment(home: Path, port: int) -> dict[str, str]:
    search_path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    variables = {
        **os.environ,
        **SERVER_ENVIRONMENT,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT__SERVER_FINAL": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, search_path)),
    }
    return {name: value for name, value in variables.items() if value}


def _wait_healthy(process: subprocess.Popen[bytes], url: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=ANSWER_SECONDS).status_code == 200:
                return True
        time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def _serve(listener_fd: int) -> None:
    """Runs in the server process: until terminated, or until the process that started it ends."""
    import uvicorn  # noqa: PLC0415 - only the server process needs it

    threading.Thread(target=_end_with_parent, daemon=True).start()
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="warning",
        lifespan="on",
        timeout_keep_alive=PREFECT_SERVER_API_KEEPALIVE_TIMEOUT.value(),
        timeout_graceful_shutdown=3,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener_fd)])


def _end_with_parent() -> None:
    # A pipe, not PR_SET_PDEATHSIG: that fires when the starting *thread* ends, and is Linux only.
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
