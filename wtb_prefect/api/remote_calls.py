"""Bodies of remote nodes as Ray tasks of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from prefect.logging import get_logger

from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner, is_ray_worker, running_ray
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.domain.interfaces.remote_calls import RemoteCalls
from wtb_prefect.domain.project import ProjectDefinition, ProjectLocations
from wtb_prefect.domain.remote_node import RemoteNode
from wtb_prefect.errors import InfrastructureError, InvalidInputError
from wtb_prefect.infrastructure.workflow.graph_source import resolve_graph
from wtb_prefect.infrastructure.workflow.remote_nodes import remote_runnable, run_packed

logger = get_logger("wtb.remote")


def remote_calls_here(project: str, locations: dict[str, str | None]) -> RemoteCalls | None:
    """Where remote nodes of this process run: as Ray tasks if it is a Ray worker, else in place."""
    return RayRemoteCalls(project, locations) if is_ray_worker() else None


class RayRemoteCalls:
    """See `RemoteCalls`. The body is found by the project's import path: functions of a user's file
    would be pickled by value, with all they refer to."""

    def __init__(self, project: str, locations: dict[str, str | None]) -> None:
        self._project = project
        self._locations = locations
        self._function: Any = None

    async def call(self, node: RemoteNode, variant: str, payload: bytes) -> bytes:
        """See `RemoteCalls.call`."""
        ray = running_ray()
        if self._function is None:
            self._function = ray.remote(_run_remote_body)
        reference = self._function.options(**_ray_options(node)).remote(
            self._project, self._locations, node.node, variant, payload
        )
        try:
            answer: bytes = await asyncio.wrap_future(reference.future())
        except asyncio.CancelledError:
            ray.cancel(reference, force=True)
            raise
        except ray.exceptions.RayError as exc:
            lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
            raise InfrastructureError(
                f"the process of remote node {node.node!r} was lost "
                f"({type(exc).__name__}: {lines[-1] if lines else ''})"
            ) from exc
        return answer


def make_room(runner: SegmentRayTaskRunner, nodes: Sequence[RemoteNode]) -> None:
    """Lets a batch with remote nodes run on this Ray.

    Its stretches hold no CPU: they wait for their remote nodes, and Ray lends the CPU of a waiting
    task only if it waits in a blocking `ray.get`. With one CPU each, two stretches on two CPUs
    waited for ever.

    Raises:
        InvalidInputError: a node asks for more than a private Ray has, and would wait for ever.
    """
    runner.segment_cpus = 0
    there = runner.start().cluster_resources()
    for node in nodes:
        for name, amount in node.needs.items():
            if amount > there.get(name, 0):
                problem = f"remote node {node} asks for {amount:g} {name}; this Ray has "
                problem += f"{there.get(name, 0):g}"
                if runner.is_private:
                    raise InvalidInputError(problem)
                logger.warning("%s: it waits until the cluster grows", problem)


def _ray_options(node: RemoteNode) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": f"node {node.node}",
        "num_cpus": node.num_cpus,
        "num_gpus": node.num_gpus,
        "resources": dict(node.resources),
        # Our ledger decides what runs again.
        "max_retries": 0,
    }
    return {**options, "memory": node.memory} if node.memory else options


def _run_remote_body(
    project: str, locations: dict[str, str | None], node: str, variant: str, payload: bytes
) -> bytes:
    """Runs in the other process, which keeps the project for the next call."""
    definition, source = _loaded(project, tuple(sorted(locations.items())))
    runnable = remote_runnable(source, definition.variants, node, variant)
    return run_packed(node, runnable, payload, in_workspace=definition.cwd == "workspace")


@cache
def _loaded(
    project: str, locations: tuple[tuple[str, str | None], ...]
) -> tuple[ProjectDefinition, Any]:
    definition = load_project(project, ProjectLocations.from_json(dict(locations)))
    return definition, resolve_graph(definition.graph)
