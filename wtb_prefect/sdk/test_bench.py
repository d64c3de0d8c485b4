"""The bench: plan, run and look back, from Python."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from math import inf
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from wtb_prefect.application.batch_test import (
    bodies_of,
    has_ended,
    plan_request,
    register_request,
    run_batch_test,
)
from wtb_prefect.application.branch_cells import branched_request
from wtb_prefect.application.collect_garbage import (
    GRACE_HOURS,
    GarbageReport,
    collect_garbage,
)
from wtb_prefect.application.compare_points import values_at
from wtb_prefect.application.integrity.check_integrity import check_integrity
from wtb_prefect.application.matrix import Matrix
from wtb_prefect.application.plan_batch import BatchPlan, BatchRequest
from wtb_prefect.application.process_outbox import (
    BATCH as OUTBOX_BATCH,
)
from wtb_prefect.application.process_outbox import (
    Verification,
    drain,
    process_pending,
)
from wtb_prefect.application.process_outbox import (
    retry_failed as retry_failed_claims,
)
from wtb_prefect.application.read_cases import Cases
from wtb_prefect.application.read_history import (
    read_boundaries,
    read_files,
    read_history,
)
from wtb_prefect.application.read_logs import read_logs
from wtb_prefect.application.read_results import find_batch, read_report
from wtb_prefect.application.run_batch import BatchRun
from wtb_prefect.application.run_options import RunSettings, run_options
from wtb_prefect.application.session import Session
from wtb_prefect.bootstrap.audit import open_audit
from wtb_prefect.bootstrap.garbage import open_garbage
from wtb_prefect.bootstrap.ledger import open_cell_logs
from wtb_prefect.domain.cell_filter import CellFilter
from wtb_prefect.domain.checkpoint import Checkpoint
from wtb_prefect.domain.file_processing import FileMemento
from wtb_prefect.domain.integrity import IntegrityReport
from wtb_prefect.domain.log_line import LogLine
from wtb_prefect.errors import InvalidInputError, NotFoundError
from wtb_prefect.infrastructure.event_loop import run_blocking, was_terminated
from wtb_prefect.infrastructure.events.event_bus import EventBus
from wtb_prefect.infrastructure.inline_runner import InlineRunner
from wtb_prefect.infrastructure.node_threads import GRACE_SECONDS, nodes_left_behind
from wtb_prefect.infrastructure.processes import is_alive, this_process
from wtb_prefect.sdk.batch_result import BatchResult, Cell
from wtb_prefect.sdk.check_run import check_not_loading, stretches_in_flight
from wtb_prefect.sdk.execution_control import ExecutionControl
from wtb_prefect.sdk.graph_sessions import GraphSessions
from wtb_prefect.sdk.workflow_project import WorkflowProject

OnPlan = Callable[[BatchPlan], None]
RunnerName = Literal["ray", "threads", "inline"]
LEFT_BEHIND = (
    "wtb: node {!r} still runs in a thread, which nothing can stop before the process ends"
)
RUNNERS: tuple[RunnerName, ...] = ("ray", "threads", "inline")


class TestBench(ExecutionControl):
    """Runs batch tests of one project and reads what the ledger has.

    Usable as a context manager; `close()` ends its connections. Every blocking method works inside
    a running event loop too, and has an async twin where awaiting makes sense.

    `events` tells what happens (classes: `wtb_prefect.events`) as far as it happens in this
    process: everything with runners `inline` and `threads`, and with `ray` what is the batch's.
    """

    __test__ = False  # pytest would take the name for a test class

    def __init__(self, project: WorkflowProject) -> None:
        self.project = project
        self.events = EventBus()
        self._sessions = GraphSessions(project, self.events.publish)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the stores; the next call opens them again."""
        self._sessions.close()

    @property
    def session(self) -> Session:
        """The project with its stores open."""
        return self._sessions.own()

    def plan(
        self,
        matrix: Matrix | None = None,
        cases: Cases = (),
        repeats: int = 1,
        share_prefixes: bool = True,
        batch_id: str | None = None,
        mocks: Mapping[str, Any] | None = None,
        only: CellFilter | None = None,
        **options: Unpack[RunSettings],
    ) -> BatchPlan:
        """What a batch would run, what the ledger has already, what is stale and why.

        Nothing is run. Raises `InvalidInputError` (or one of its kinds) for what cannot be run.
        """
        request = BatchRequest(
            matrix=matrix,
            cases=cases,
            repeats=repeats,
            share_prefixes=share_prefixes,
            batch_id=batch_id,
            options=run_options(options),
            mocks=mocks or {},
            only=only,
        )
        return plan_request(request, self.session)

    def batch(
        self,
        matrix: Matrix | None = None,
        cases: Cases = (),
        repeats: int = 1,
        runner: RunnerName | None = None,
        share_prefixes: bool = True,
        max_parallel: int | None = None,
        batch_id: str | None = None,
        on_plan: OnPlan | None = None,
        mocks: Mapping[str, Any] | None = None,
        only: CellFilter | None = None,
        **options: Unpack[RunSettings],
    ) -> BatchResult:
        """Runs every cell of a request that has no valid answer yet, and returns all its cells.

        Args:
            matrix: node -> variant names (`"*"`: all), or a list of combinations; None: baseline.
            cases: `Case`s, dicts, or the path of a `.jsonl` or `.csv` file.
            repeats: independent draws per case and combination.
            runner: `"inline"` (this process), `"threads"` or `"ray"` (the Prefect flow); None is
                `"ray"` where PREFECT_API_URL is set and else `"inline"`.
            share_prefixes: run shared prefixes once.
            max_parallel: stretches in flight at once.
            batch_id: a name for the batch, to extend it later. None: made from the request.
            on_plan: called with the plan before anything runs.
            mocks: node -> output that stands for it, function of the state, or `Recorded`.
            only: the cells to run now; the others stay missing until a call asks for them.
            options: how to run. `retries`: attempts after a transient error, per execution (3).
                `time_limit`: seconds a cell may take, its shared prefix included (None: any).
                `retry_failed`: failed cells go on from their last record (False).
                `fail_fast`: after the first failed cell nothing new is started (False).
                `keep_stale`: done cells whose code, case or files have changed since are left as
                they are (False). `use_cache`: answer nodes declared as cached from the node result
                cache, and keep their results in it (True). `record`: nodes whose outputs are kept,
                to be replayed by later batches. `self_check`: cells to run again on their own and
                to compare (0).

        Raises:
            InvalidInputError: the request cannot be run as written.
            BatchBusyError: another live process runs this batch.
            InfrastructureError: a store, server or Ray failed; the same call goes on from there.
        """
        request = BatchRequest(
            matrix=matrix,
            cases=cases,
            repeats=repeats,
            share_prefixes=share_prefixes,
            batch_id=batch_id,
            options=run_options(options),
            mocks=mocks or {},
            only=only,
        )
        return self._ran(request, runner, max_parallel, on_plan)

    def branch_all(
        self,
        batch_id: str,
        node: str,
        variant: str,
        runner: RunnerName | None = None,
        max_parallel: int | None = None,
        new_batch_id: str | None = None,
        on_plan: OnPlan | None = None,
    ) -> BatchResult:
        """Forks every cell of a batch at a node, with another variant of it: a batch of its own.

        It has each combination of the batch with this variant, the same cases and repeats. What
        comes before the node is not run again. The same call again goes on with it.

        Args:
            batch_id: the batch, which stays as it is; its id or how that begins.
            node: the node's name in the graph; inside a mounted subgraph its path, `outer|inner`.
            variant: the variant that all cells get.
            runner, max_parallel, on_plan: see `batch`.
            new_batch_id: a name for the new batch. None: made from what is asked for.

        Raises:
            NotFoundError: no such batch, node or variant; nothing was run.
            BatchBusyError, InfrastructureError: as from `batch`.
        """
        with self.session.open_uow() as uow:
            found = find_batch(uow, self.session.project.workflow_id, batch_id)
        request = branched_request(found.batch_id, node, variant, new_batch_id, self.session)
        return self._ran(request, runner, max_parallel, on_plan)

    def _ran(
        self,
        request: BatchRequest,
        runner: RunnerName | None,
        max_parallel: int | None,
        on_plan: OnPlan | None,
    ) -> BatchResult:
        plan, bodies = self._run(request, runner, max_parallel, on_plan)
        cell_ids = {planned.cell.cell_id for planned in plan.cells}
        return self._result(plan.batch_id, bodies, cell_ids, plan)

    async def abranch_all(self, *args: Any, **options: Any) -> BatchResult:
        """`branch_all`, awaited."""
        return await asyncio.to_thread(self.branch_all, *args, **options)

    async def abatch(self, *args: Any, **options: Any) -> BatchResult:
        """`batch` for those who await: the same arguments, in a thread of its own."""
        return await asyncio.to_thread(self.batch, *args, **options)

    def _run(
        self,
        request: BatchRequest,
        runner: RunnerName | None,
        max_parallel: int | None,
        on_plan: OnPlan | None,
    ) -> tuple[BatchPlan, int]:
        check_not_loading()
        name = _runner(runner)
        parallel = stretches_in_flight(self.project, name, max_parallel)
        if name == "inline":
            found = run_blocking(self._run_inline(request, parallel, on_plan))
        else:
            found = self._run_flow(request, name, parallel, on_plan)
        for node in nodes_left_behind(grace=GRACE_SECONDS):
            print(LEFT_BEHIND.format(node), file=sys.stderr)  # noqa: T201 - said in one line
        return found

    async def _run_inline(
        self, request: BatchRequest, parallel: int, on_plan: OnPlan | None
    ) -> tuple[BatchPlan, int]:
        session = self.session
        run = BatchRun(
            owner=this_process(),
            runner_name="inline",
            is_alive=is_alive,
            on_plan=on_plan,
            was_terminated=was_terminated,
        )
        end = await run_batch_test(
            request, session, lambda scope: InlineRunner(scope, session, parallel), run
        )
        return end.plan, end.node_executions

    def _run_flow(
        self, request: BatchRequest, runner: RunnerName, parallel: int, on_plan: OnPlan | None
    ) -> tuple[BatchPlan, int]:
        """Stores the request, then runs the flow with its id: flow parameters stay small."""
        project = self.project.import_path
        if project is None:
            raise InvalidInputError(
                f"runner {runner!r} imports the project in other processes, but project "
                f"{self.project.name!r} {self.project.unreachable_reason}: assign it to a name at "
                "the top level of a .py file, or use runner='inline'"
            )
        plan = register_request(request, self.session, is_alive, runner)
        if on_plan is not None:
            on_plan(plan)
        # Prefect asks at its import; a user's own answer stands.
        os.environ.setdefault("DO_NOT_TRACK", "1")
        # Prefect takes seconds to import: only those who run a flow pay for it.
        from wtb_prefect.api.events import listening  # noqa: PLC0415
        from wtb_prefect.api.run_flow import run_batch_flow  # noqa: PLC0415
        from wtb_prefect.api.without_server import ServerLostError  # noqa: PLC0415

        before = bodies_of(plan.batch_id, self.session)
        try:
            with listening(self.events):
                bodies = run_batch_flow(
                    project=project,
                    locations=self.project.locations,
                    batch_id=plan.batch_id,
                    runner=runner,
                    max_parallel=parallel,
                )
        except ServerLostError as error:
            if not has_ended(plan.batch_id, self.session):
                raise
            print(f"wtb: {error}; the results are complete", file=sys.stderr)  # noqa: T201 - said in one line
            bodies = bodies_of(plan.batch_id, self.session) - before
        return plan, bodies

    def results(self, batch_id: str | None = None) -> BatchResult:
        """A batch read back from the ledger; the newest if no id is given."""
        with self.session.open_uow() as uow:
            found = find_batch(uow, self.session.project.workflow_id, batch_id)
        return self._result(found.batch_id, 0, None, None)

    def _result(
        self, batch_id: str, bodies: int, cell_ids: set[str] | None, plan: BatchPlan | None
    ) -> BatchResult:
        report = read_report(self.session.open_uow, batch_id, cell_ids)
        cells = [Cell(result, self.state, self.implementations) for result in report.cells]
        return BatchResult(report, cells, bodies, plan)

    def history(self, execution_id: str) -> list[Checkpoint]:
        """Checkpoints behind an execution, oldest first, over its whole lineage."""
        session, full = self._sessions.of(execution_id)
        return list(read_history(session.open_uow, full).checkpoints)

    def state(self, execution_id: str, checkpoint_id: str | None = None) -> Mapping[str, Any]:
        """The state's values now, or at a checkpoint behind the execution."""
        session, full = self._sessions.of(execution_id)
        return values_at((full, checkpoint_id), session)

    def files(self, execution_id: str, checkpoint_id: str | None = None) -> dict[str, FileMemento]:
        """The files of an execution now, or as they were at a checkpoint."""
        session, full = self._sessions.of(execution_id)
        return read_files(session.open_uow, full, checkpoint_id)

    def implementations(self, execution_id: str) -> dict[str, str]:
        """Node -> `variant@fingerprint` of the code that ran, over the whole lineage."""
        session, full = self._sessions.of(execution_id)
        boundaries = read_boundaries(session.open_uow, full)
        return {b.node: f"{b.variant}@{b.fingerprint[:12]}" for b in boundaries}

    def logs(self, execution_id: str) -> list[LogLine]:
        """What an execution's code printed and logged, its prefixes first and its failures last."""
        session, full = self._sessions.of(execution_id)
        reader = open_cell_logs(self.project.locations)
        return read_logs(session.open_uow, reader, full)

    def verify_outbox(
        self, seconds: float | None = None, *, deep: bool = False, retry_failed: bool = False
    ) -> Verification:
        """Verifies claims about checkpoints and files that are due, until none is left.

        Args:
            seconds: stop after about so long; None: go on to the end.
            deep: read every checkpoint and all bytes of files; else only their places and sizes.
            retry_failed: claims that have failed for good are tried again.

        Raises `InfrastructureError`: the ledger cannot be used.
        """
        if retry_failed:
            retry_failed_claims(self.session)
        return drain(self.session, inf if seconds is None else seconds, deep=deep)

    def process_pending(self, limit: int = OUTBOX_BATCH, *, deep: bool = False) -> Verification:
        """The same for one bounded number of claims: a step of a loop of your own."""
        return process_pending(self.session, limit, deep=deep)

    def check_integrity(self, repair: bool = False, *, deep: bool = False) -> IntegrityReport:
        """Audits all stores of the project against each other, both ways.

        Args:
            repair: do about each issue what its action says; see `RepairAction`.
            deep: read every checkpoint and all contents of files, too.

        Raises `InfrastructureError`: a store cannot be opened or read.
        """
        with open_audit(self.session.project.locations) as stores:
            return check_integrity(stores, deep=deep, repair=repair)

    def collect_garbage(
        self, grace: float = GRACE_HOURS, *, dry_run: bool = False
    ) -> GarbageReport:
        """Removes contents of files that nothing names any more, or says what would go.

        Args:
            grace: what was written in the last so many hours stays; 0 only if nothing runs.
            dry_run: change nothing.

        Raises:
            InvalidInputError: a negative grace period.
            InfrastructureError: a ledger or the blob store cannot be read or changed.
        """
        with open_garbage(self.session.project.locations) as stores:
            return collect_garbage(stores, grace, dry_run=dry_run)


def _runner(asked: str | None) -> RunnerName:
    if asked is None:
        chosen: RunnerName = "ray" if os.environ.get("PREFECT_API_URL") else "inline"
        why = "PREFECT_API_URL is set" if chosen == "ray" else "PREFECT_API_URL is not set"
        print(f"wtb: runner {chosen} ({why})", file=sys.stderr)  # noqa: T201 - said in one line
        return chosen
    for name in RUNNERS:
        if asked == name:
            return name
    raise NotFoundError("runner", str(asked), RUNNERS)
