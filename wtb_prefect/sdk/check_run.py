"""What a project and the moment allow of a run, checked before anything is planned."""

from __future__ import annotations

from wtb_prefect.application.run_chunk import DEFAULT_PARALLEL
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.workflow.graph_source import file_being_loaded
from wtb_prefect.sdk.workflow_project import WorkflowProject


def check_not_loading() -> None:
    """Raises `InvalidInputError` while a project's file is imported: what it runs at its top level
    would run again in every process that imports it."""
    file = file_being_loaded()
    if file is not None:
        raise InvalidInputError(
            f"batch() was called while {file} was being imported, as every worker imports it: put "
            'what the file runs below `if __name__ == "__main__":`'
        )


def stretches_in_flight(project: WorkflowProject, runner: str, asked: int | None) -> int:
    """How many stretches a run may have in flight at once.

    Raises:
        InvalidInputError: less than one, or more than the current directory of a process allows.
    """
    if asked is not None and (not isinstance(asked, int) or asked < 1):
        raise InvalidInputError(f"max_parallel is {asked!r}; at least 1 is needed")
    if project.cwd is None or runner == "ray":
        return DEFAULT_PARALLEL if asked is None else asked
    if runner == "threads":
        raise InvalidInputError(
            f"project {project.name!r} has cwd='workspace', and threads of one process share its "
            "current directory: use the runner 'ray' or 'inline'"
        )
    if asked is not None and asked > 1:
        raise InvalidInputError(
            f"max_parallel is {asked}, but project {project.name!r} has cwd='workspace', and a "
            "process has one current directory: leave it out, or use the runner 'ray'"
        )
    return 1
