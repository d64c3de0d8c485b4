"""From an import path to a project, in whatever process."""

from __future__ import annotations

from dataclasses import replace

from wtb_prefect.domain.project import ProjectDefinition, ProjectLocations
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.workflow.graph_source import load_attribute


def load_project(path: str, locations: ProjectLocations | None = None) -> ProjectDefinition:
    """The project at `module:attribute` or `file.py:attribute`, kept where `locations` say.

    Raises:
        NotFoundError: nothing there.
        InvalidInputError: something else than a project is there.
    """
    found = load_attribute(path)
    if not hasattr(found, "definition"):
        raise InvalidInputError(f"{path} is a {type(found).__name__}, not a WorkflowProject")
    definition: ProjectDefinition = found.definition()
    definition = replace(definition, import_path=path)
    return definition if locations is None else replace(definition, locations=locations)
