"""Running the batch flow from Python or the command line, with servers of our own if need be."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from prefect import tags
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from wtb_prefect.api.flows import batch_test
from wtb_prefect.api.prefect_segments import FLOW_RUN_LOGGER
from wtb_prefect.api.server import prefect_server
from wtb_prefect.api.without_server import ServerLostError, server_is_lost
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.errors import WTBError

CLIENT_RETRIES = 2
"""Prefect's default of 5 waits 62 s for a server that is gone, at every call."""


def run_batch_flow(
    *,
    project: str,
    locations: ProjectLocations,
    batch_id: str,
    runner: Literal["ray", "threads", "inline"],
    max_parallel: int,
) -> int:
    """Runs a stored batch as the flow `batch_test`; returns the node bodies it called.

    Where PREFECT_API_URL is set that server is used; otherwise one is started for the run, its
    database kept below the project's output folder. The server is healthy before Ray starts: on a
    small machine the two starting at once time each other out.

    Raises:
        ServerLostError: the server ended before the run; how far the batch is stands in the ledger.
        InfrastructureError: no server, or Ray does not start.
    """
    chosen = batch_test
    if runner == "threads":
        threads: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(
            max_workers=min(max_parallel, os.cpu_count() or 1)
        )
        chosen = batch_test.with_options(task_runner=threads)  # type: ignore[arg-type]  # its futures are a subclass
    home = locations.output_dir / "prefect"
    with (
        prefect_server(home) as server,
        tags("wtb", f"batch:{batch_id}"),
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: CLIENT_RETRIES}),
        _level_kept(logging.getLogger(FLOW_RUN_LOGGER)),
    ):
        until = " (while the batch runs)" if server.started_here else ""
        print(f"wtb: watch at {server.ui_url}/runs{until}", file=sys.stderr)  # noqa: T201 - said in one line
        try:
            summary = chosen(
                project=project,
                batch_id=batch_id,
                max_parallel=max_parallel,
                locations=locations.to_json(),
            )
        except WTBError:
            raise
        except Exception as error:  # Prefect's own kinds, if its server is gone: raised on if not
            if server_is_lost():
                raise ServerLostError(
                    f"the Prefect server at {server.url} was lost ({type(error).__name__})"
                ) from error
            raise
    return int(summary["node_executions"])


@contextmanager
def _level_kept(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    try:
        yield
    finally:
        logger.setLevel(level)
