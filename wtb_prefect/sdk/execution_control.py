"""The bench's methods that run, hold, put back and branch single executions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from wtb_prefect.application.ask_execution import pause_execution, stop_execution
from wtb_prefect.application.branch_execution import BranchRequest, branch_execution
from wtb_prefect.application.compare_points import Difference, compare_points
from wtb_prefect.application.drive_execution import Controller
from wtb_prefect.application.references import reference_to
from wtb_prefect.application.resume_execution import resume_execution, standing_of
from wtb_prefect.application.roll_back import point_to_return_to, roll_back
from wtb_prefect.application.session import Session
from wtb_prefect.application.start_execution import RunRequest, start_execution
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.infrastructure.event_loop import run_blocking
from wtb_prefect.infrastructure.processes import is_alive, this_process
from wtb_prefect.sdk.graph_sessions import GraphSessions
from wtb_prefect.sdk.run_result import RunResult

_WAIT_SECONDS = 30.0


class ExecutionControl:
    """Part of `TestBench`. Ids of executions may be shortened, as on the command line."""

    _sessions: GraphSessions

    def run(
        self,
        graph: Any = None,
        initial_state: Mapping[str, Any] | None = None,
        variants: Mapping[str, str] | None = None,
        breakpoints: Sequence[str] = (),
    ) -> RunResult:
        """Runs the workflow once, to its end, a breakpoint, a question or a failure.

        Args:
            graph: a workflow in place of the project's own. To be resumed in another process it
                has to be importable, or the project's.
            initial_state: the state it starts with.
            variants: node -> variant; nodes that are not named keep their original.
            breakpoints: nodes to stop before, whenever they come up (`outer|inner`: in subgraphs).

        Raises:
            NotFoundError, StateError, GraphError: nothing was run.
            InfrastructureError: a store failed; `resume` goes on from the last record.
        """
        request = RunRequest(
            execution_id=str(uuid.uuid4()),
            state=initial_state or {},
            variants=variants or {},
            breakpoints=breakpoints,
            graph=graph if isinstance(graph, str) else reference_to(graph),
        )
        session = self._sessions.given(graph, request.execution_id)
        return _result(_run(start_execution(request, session, _here())), session)

    def pause(self, execution_id: str, wait: float = _WAIT_SECONDS) -> RunResult:
        """Has a running execution pause before its next super-step, in whatever process it runs.

        Returns once it has, or after `wait` seconds with the status `running`: the request stands.

        Raises:
            NotFoundError, IllegalMoveError: it does not run.
        """
        session, found = self._sessions.of(execution_id)
        return _result(_run(pause_execution(found, session, _here(), wait)), session)

    def stop(self, execution_id: str, wait: float = _WAIT_SECONDS) -> RunResult:
        """Cancels an execution for good; one that runs, before its next super-step.

        Returns once it has, or after `wait` seconds with the status `running`: the request stands.

        Raises:
            NotFoundError, IllegalMoveError: it has ended already.
        """
        session, found = self._sessions.of(execution_id)
        return _result(_run(stop_execution(found, session, _here(), wait)), session)

    def resume(
        self,
        execution_id: str,
        update: Mapping[str, Any] | None = None,
        value: Any = None,
        breakpoints: Sequence[str] | None = None,
    ) -> RunResult:
        """Goes on with a paused, failed or crashed execution from where it stands.

        Args:
            execution_id: which.
            update: a change of the state, made first and through its reducers, as if the last
                node had returned it.
            value: the answer to the open question of `interrupt()`; several: {id: answer}.
            breakpoints: in place of those it has (None: they stay).

        Raises:
            NotFoundError, IllegalMoveError, InvalidInputError: it was left as it was.
        """
        session, found = self._sessions.of(execution_id)
        going_on = resume_execution(
            found, session, _here(), edit=update, value=value, breakpoints=breakpoints
        )
        return _result(_run(going_on), session)

    def step(self, execution_id: str, value: Any = None) -> RunResult:
        """Runs one super-step of a paused execution: its next nodes, and no more. See `resume`."""
        session, found = self._sessions.of(execution_id)
        stepping = resume_execution(found, session, _here(), value=value, stepping=True)
        return _result(_run(stepping), session)

    def rollback(
        self, execution_id: str, checkpoint_id: str | None = None, node: str | None = None
    ) -> RunResult:
        """Puts an execution back to a checkpoint behind it, or to just after a node's last visit.

        State, next nodes and files are what they were there; `resume` goes on. What came after is
        kept: its checkpoints can be read and branched from under this execution's id.

        Raises:
            NotFoundError: the checkpoint or visit is not behind this execution.
            IllegalMoveError: it runs, was stopped, or belongs to a batch.
        """
        session, found = self._sessions.of(execution_id)
        place = point_to_return_to(found, checkpoint_id, node, session)
        return _result(roll_back(found, place, str(uuid.uuid4()), session, _here()), session)

    def branch(
        self,
        execution_id: str,
        checkpoint_id: str,
        variants: Mapping[str, str] | None = None,
        update: Mapping[str, Any] | None = None,
        breakpoints: Sequence[str] = (),
    ) -> RunResult:
        """A new execution that goes on from a checkpoint, with other variants or another state.

        It runs only what follows, in a workspace of its own with the files of that point. The
        execution it comes from may be any one, also of a batch, and stays as it is.

        Raises:
            NotFoundError, InvalidInputError: nothing was run.
        """
        session, found = self._sessions.of(execution_id)
        request = BranchRequest(
            execution_id=str(uuid.uuid4()),
            source_id=found,
            checkpoint_id=checkpoint_id,
            variants=variants or {},
            edit=update,
            breakpoints=breakpoints,
        )
        return _result(_run(branch_execution(request, session, _here())), session)

    def execution(self, execution_id: str) -> RunResult:
        """How an execution stands now."""
        session, found = self._sessions.of(execution_id)
        with session.open_uow() as uow:
            execution = uow.executions.get(found)
        assert execution is not None, "found just now"
        return _result(execution, session)

    def diff(
        self,
        execution_id: str,
        checkpoint_id: str | None = None,
        other_checkpoint_id: str | None = None,
        other_execution_id: str | None = None,
    ) -> Difference:
        """What differs between two checkpoints, of one execution or of two (None: where it stands).

        Raises:
            NotFoundError: no such execution, or no such checkpoint of it.
        """
        session, one = self._sessions.of(execution_id)
        other = one if other_execution_id is None else self._sessions.of(other_execution_id)[1]
        return compare_points((one, checkpoint_id), (other, other_checkpoint_id), session)

    async def arun(self, *args: Any, **options: Any) -> RunResult:
        """`run` for those who await: the same arguments, in a thread of its own."""
        return await asyncio.to_thread(self.run, *args, **options)

    async def apause(self, *args: Any, **options: Any) -> RunResult:
        """`pause`, awaited."""
        return await asyncio.to_thread(self.pause, *args, **options)

    async def astop(self, *args: Any, **options: Any) -> RunResult:
        """`stop`, awaited."""
        return await asyncio.to_thread(self.stop, *args, **options)

    async def aresume(self, *args: Any, **options: Any) -> RunResult:
        """`resume`, awaited."""
        return await asyncio.to_thread(self.resume, *args, **options)

    async def astep(self, *args: Any, **options: Any) -> RunResult:
        """`step`, awaited."""
        return await asyncio.to_thread(self.step, *args, **options)

    async def abranch(self, *args: Any, **options: Any) -> RunResult:
        """`branch`, awaited."""
        return await asyncio.to_thread(self.branch, *args, **options)


def _here() -> Controller:
    return Controller(owner=this_process(), is_alive=is_alive)


def _run(work: Coroutine[Any, Any, Execution]) -> Execution:
    return run_blocking(work)


def _result(execution: Execution, session: Session) -> RunResult:
    state: Mapping[str, Any] = {}
    if execution.head is not None:
        thread = thread_id(execution.execution_id)
        state = session.engine.state(thread, execution.head).values
    return RunResult(
        execution_id=execution.execution_id,
        status=execution.status,
        state=state,
        next=execution.next_nodes,
        error=execution.error,
        questions=standing_of(execution, session).questions,
        node_executions=execution.node_executions,
        parent_id=None if execution.lineage is None else execution.lineage.parent_id,
    )
