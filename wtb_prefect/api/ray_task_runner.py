"""Prefect's Ray task runner, made fit for batches. The only place that imports Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Self
from uuid import UUID, uuid4

from prefect.client.schemas.objects import RunInput
from prefect.context import (
    AssetContext,
    FlowRunContext,
    SettingsContext,
    TagsContext,
    TaskRunContext,
    serialize_context,
)
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner
from prefect.tasks import Task
from prefect.utilities.engine import collect_task_run_inputs_sync

from wtb_prefect.api.prefect_segments import drain_worker_queues
from wtb_prefect.api.worker_end import end_if_a_node_hangs
from wtb_prefect.errors import InfrastructureError

RAY_MISSING = (
    "Ray is not installed: pip install 'prefect-ray>=0.6' (or choose the runner 'threads' or"
    " 'inline')"
)
try:
    from prefect_ray.context import RemoteOptionsContext
    from prefect_ray.task_runners import PrefectRayFuture, RayTaskRunner
except ImportError as missing:
    raise InfrastructureError(RAY_MISSING) from missing

NO_SERVER = (
    "Ray workers need a Prefect server: set PREFECT_API_URL, or run inside"
    " wtb_prefect.api.server.prefect_server() (without one, each worker starts its own)"
)
PRIVATE_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",  # Prefect's client in the workers
    # ray.init took 14 to 32 s on a loaded machine; the default limit of 30 s was hit.
    "RAY_raylet_start_wait_time_s": "120",
    # The default of a private Ray since 2.60, which warns unless told so.
    "RAY_AUTH_MODE": "token",
    # The only way to loopback: Ray replaces a node address of 127.0.0.1 by the machine's own on
    # Linux, and listens on all interfaces. With it ray.init took 7.6 s, without it 12.8 s.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
START_ATTEMPTS = 3
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # results are small JSON; Ray would take 30 % of memory


class SegmentRayTaskRunner(RayTaskRunner[Any]):  # type: ignore[misc]  # base is untyped
    """Ray with the guarantees a batch needs.

    - Ray never runs a task again by itself: nodes would run twice without the ledger knowing.
    - A private local Ray (loopback, no dashboard, no usage statistics) unless an address is given
      as an argument or in `RAY_ADDRESS`; only a private Ray is stopped at the end.
    - Logs and events reach the server before a task ends.

    Args:
        address: of a running Ray; default `RAY_ADDRESS`.
        init_kwargs: more arguments of `ray.init`.
        num_cpus: how many tasks run at once on a private Ray; default the number of CPUs.
    """

    def __init__(
        self,
        address: str | None = None,
        init_kwargs: dict[str, Any] | None = None,
        num_cpus: int | None = None,
    ) -> None:
        super().__init__(address=address, init_kwargs=init_kwargs)
        self.num_cpus = num_cpus
        self.segment_cpus: float | None = None
        self._remote_function: Any = None
        self._shared_context: tuple[Any, Any, dict[str, Any]] | None = None
        self._ray_ended: threading.Event | None = None

    def duplicate(self) -> Self:
        """A new runner with the same settings."""
        return type(self)(self.address, self.init_kwargs, self.num_cpus)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SegmentRayTaskRunner)
            and super().__eq__(other)
            and self.num_cpus == other.num_cpus
        )

    __hash__ = None  # type: ignore[assignment]  # as the base class: compared by settings

    @property
    def slots(self) -> int:
        """How many tasks of one CPU this Ray runs at once. Starts Ray."""
        return max(1, int(self.start().cluster_resources().get("CPU", 1)))

    @property
    def is_private(self) -> bool:
        """Whether this Ray is started here and has what it has, for good."""
        return not self._address()

    def __enter__(self) -> Self:
        # Not the base class's, which starts Ray here. An error at this point leaves the flow run
        # Running for ever (3.8.8), a batch with nothing left to run needs no Ray, and Prefect
        # enters the runner in every worker again.
        TaskRunner.__enter__(self)
        return self

    def start(self) -> Any:
        """Connects to Ray or starts it, once; gives the Ray module. `submit` does it if need be."""
        ray = _import_ray()
        if self._remote_function is None:
            if not PREFECT_API_URL.value():
                raise InfrastructureError(NO_SERVER)
            if not ray.is_initialized():
                self._in_lasting_thread(lambda: self._connect(ray))
                self._owns_ray = True  # the base class shuts down at the end, or disconnects
            self._remote_function = ray.remote(self._run_prefect_task)
        return ray

    def __exit__(self, *exc_info: Any) -> None:
        super().__exit__(*exc_info)
        if self._ray_ended:
            self._ray_ended.set()

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectRayFuture[Any]:
        """As the base class, but Ray never retries and the context is cached."""
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        self.start()
        task_run_id = uuid4()
        context = self._context(task, task_run_id, parameters)
        arguments, upstream = self._exchange_prefect_for_ray_futures(parameters)
        options = RemoteOptionsContext.get().current_remote_options
        if self.segment_cpus is not None:
            options = {**options, "num_cpus": self.segment_cpus}
        reference = self._remote_function.options(
            **{**options, "name": task.name, "max_retries": 0}
        ).remote(
            *upstream,
            task=task,
            task_run_id=task_run_id,
            parameters=arguments,
            wait_for=wait_for,
            dependencies=dependencies,
            context=context,
        )
        return PrefectRayFuture(task_run_id=task_run_id, wrapped_future=reference)

    def submit_call(
        self, call_id: UUID, function: Callable[..., Any], arguments: dict[str, Any]
    ) -> PrefectRayFuture[Any]:
        """A plain call on a worker, of which Prefect's server knows nothing."""
        call = self.start().remote(max_retries=0)(_call)
        reference = call.options(name=function.__name__).remote(function, arguments)
        return PrefectRayFuture(task_run_id=call_id, wrapped_future=reference)

    def cancel(self, future: PrefectFuture[Any]) -> None:
        """Ends the task at once, with its worker process."""
        if isinstance(future, PrefectRayFuture):
            _import_ray().cancel(future.wrapped_future, force=True)

    def _context(
        self, task: Task[Any, Any], task_run_id: UUID, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        """Prefect's `serialize_context`, with what is the same for all tasks of a run made once:
        50 to 140 ms a submit, nearly all of it for flow run and settings."""
        assets = AssetContext.from_task_and_inputs(
            task=task,
            task_run_id=task_run_id,
            task_inputs={
                name: collect_task_run_inputs_sync(value, future_cls=PrefectRayFuture)
                for name, value in parameters.items()
            },
            copy_to_child_ctx=True,
        )
        task_run, tags = TaskRunContext.get(), TagsContext.get()
        return {
            **self._run_context(),
            "task_run_context": task_run.serialize() if task_run else {},
            "tags_context": tags.serialize() if tags else {},
            "asset_context": assets.serialize(),
        }

    def _run_context(self) -> dict[str, Any]:
        flow_run, settings = FlowRunContext.get(), SettingsContext.get()
        cached = self._shared_context
        if cached is None or cached[0] is not flow_run or cached[1] is not settings:
            cached = self._shared_context = (flow_run, settings, serialize_context())
        return cached[2]

    @staticmethod
    def _run_prefect_task(*upstream_ray_obj_refs: Any, **arguments: Any) -> Any:
        """Runs in the worker; drains after the engine, so that the final state is sent too."""
        try:
            return RayTaskRunner._run_prefect_task(*upstream_ray_obj_refs, **arguments)
        finally:
            drain_worker_queues()
            end_if_a_node_hangs()

    def _in_lasting_thread(self, connect: Callable[[], None]) -> None:
        """The kernel kills a private Ray when the *thread* that started it ends, and this process
        60 s later. The main thread lasts; from any other one, a thread of our own starts Ray."""
        if threading.current_thread() is threading.main_thread():
            connect()
            return
        outcome: Future[None] = Future()
        ended = self._ray_ended = threading.Event()

        def keep() -> None:
            try:
                connect()
            except BaseException as error:  # noqa: BLE001 - raised in the thread that asked
                outcome.set_exception(error)
            else:
                outcome.set_result(None)
                ended.wait()

        threading.Thread(target=keep, name="wtb-ray", daemon=True).start()
        outcome.result()

    def _address(self) -> str | None:
        return self.address or os.environ.get("RAY_ADDRESS")

    def _connect(self, ray: Any) -> None:
        address = self._address()
        if not address:
            self._start_private(ray)
            return
        try:
            self._ray_context = ray.init(address=address, **self.init_kwargs)
        except Exception as error:  # ray.init raises what its layers raise, bare Exception too
            raise InfrastructureError(
                f"no Ray answers at {address} ({_one_line(error)}): check the address, or unset"
                " RAY_ADDRESS to have a private Ray started for the run"
            ) from error

    def _start_private(self, ray: Any) -> None:
        _set_private(ray)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                with _search_path_for_workers():
                    self._ray_context = ray.init(**self._private_arguments())
                return
            except Exception as error:  # noqa: BLE001 - as above; mostly a loaded machine
                ray.shutdown()
                last = error
                self.logger.warning(
                    "Ray did not start (attempt %s of %s): %s",
                    attempt,
                    START_ATTEMPTS,
                    _one_line(error),
                )
        raise InfrastructureError(
            f"Ray did not start in {START_ATTEMPTS} attempts ({_one_line(last)}): free some CPU and"
            " memory, give RAY_ADDRESS of a running Ray, or choose the runner 'threads'"
        ) from last

    def _private_arguments(self) -> dict[str, Any]:
        return {
            # Not None: that would join any Ray that runs on this machine.
            "address": "local",
            "num_cpus": self.num_cpus,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "object_store_memory": OBJECT_STORE_BYTES,
            "logging_level": "WARNING",
            "log_to_driver": False,  # Prefect has the workers' logs; here they break the display
            **self.init_kwargs,
        }


def _call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return function(**arguments)
    finally:
        end_if_a_node_hangs()


@contextlib.contextmanager
def _search_path_for_workers() -> Iterator[None]:
    """Workers import what this process imports: Ray hands on the script's folder and the working
    directory only, and Ray's processes inherit the environment they were started in."""
    standard = set(sysconfig.get_paths().values())
    stdlib = sysconfig.get_path("stdlib")
    own = [path or os.getcwd() for path in sys.path]
    own = [path for path in own if path not in standard and not path.startswith(stdlib)]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(own)
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        os.environ.update({} if before is None else {"PYTHONPATH": before})


def _set_private(ray: Any) -> None:
    """Settings of a private Ray; those that the user has set stay.

    Ray's processes read the environment when they start, but this one has read it when Ray was
    imported, which may be long ago: prefect-ray leaves a lazy module, and whatever looks through
    `sys.modules` (`inspect` does) really imports it. With the settings missing a private Ray
    listened on all interfaces.
    """
    os.environ.update(PRIVATE_RAY_ENVIRONMENT | dict(os.environ))
    constants = ray._private.ray_constants
    constants.ENABLE_RAY_CLUSTER = constants.env_bool(constants.ENABLE_RAY_CLUSTERS_ENV_VAR, True)
    ray._raylet.Config.initialize("")


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Ray warns that it does not take SIGTERM from this thread; it shall not."""
    return not record.getMessage().startswith("SIGTERM handler is not set")


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def is_ray_worker() -> bool:
    """Whether this process runs tasks of a Ray."""
    if "ray._raylet" not in sys.modules:
        return False
    ray = _import_ray()
    return bool(ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def running_ray() -> Any:
    """The Ray module, in a process that is connected already."""
    return _import_ray()


def _import_ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - flows can be imported where Ray is not installed

        ray.__version__  # noqa: B018 - prefect-ray has left a lazy module; this really imports it
    except ImportError as error:
        raise InfrastructureError(RAY_MISSING) from error
    logging.getLogger("ray._private.worker").addFilter(_is_worth_saying)
    return ray
