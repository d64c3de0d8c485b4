"""The stores of a bench, with the project's graph or with one that was given to a run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from wtb_prefect.application.read_history import find_execution
from wtb_prefect.application.session import Session
from wtb_prefect.bootstrap.ledger import open_ledger
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.domain.events import Tell
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.project import workflow_id_of
from wtb_prefect.errors import GraphError, NotFoundError
from wtb_prefect.sdk.workflow_project import WorkflowProject


class GraphSessions:
    """Opens each graph once; `close` closes them all."""

    def __init__(self, project: WorkflowProject, tell: Tell) -> None:
        self._project = project
        self._tell = tell
        self._stack = ExitStack()
        self._own: Session | None = None
        self._by_path: dict[str, Session] = {}
        self._by_execution: dict[str, Session] = {}

    def close(self) -> None:
        """Closes the stores; the next call opens them again."""
        self._own = None
        self._by_path.clear()
        self._by_execution.clear()
        self._stack.close()

    def own(self) -> Session:
        """With the project's graph."""
        if self._own is None:
            self._own = self._open(self._project.graph)
        return self._own

    def given(self, graph: Any, execution_id: str) -> Session:
        """With a graph that was given to a run; it is remembered for that execution."""
        session = self.own() if graph is None else self._open(graph)
        self._by_execution[execution_id] = session
        return session

    def of(self, asked: str) -> tuple[Session, str]:
        """The session with the graph that an execution was run with, and its whole id.

        Raises:
            NotFoundError, InvalidInputError: no execution, or several, have such an id.
            GraphError: its graph was given to the run and cannot be imported again.
        """
        found, path = self._look_up(asked)
        if found in self._by_execution:
            return self._by_execution[found], found
        if path is None:
            if self._project.graph is None:
                raise GraphError(
                    f"execution {found} was run with a graph that cannot be imported here; give it "
                    "to WorkflowProject(graph=...)"
                )
            return self.own(), found
        if path not in self._by_path:
            self._by_path[path] = self._open(path)
        return self._by_path[path], found

    def _look_up(self, asked: str) -> tuple[str, str | None]:
        """An execution's whole id, and the import path of the graph it was run with, if that is
        not the project's."""
        with ExitStack() as stack:
            if self._own is not None:
                open_uow: OpenUnitOfWork | None = self._own.open_uow
            else:
                open_uow = stack.enter_context(open_ledger(self._project.locations.database_url))
            if open_uow is None:
                raise NotFoundError("execution", asked)
            with open_uow() as uow:
                found = find_execution(uow, workflow_id_of(self._project.name), asked).execution_id
                control = uow.execution_controls.get(found)
        return found, None if control is None else control.graph

    def _open(self, graph: Any) -> Session:
        return self._stack.enter_context(open_session(self._project.definition(graph), self._tell))
