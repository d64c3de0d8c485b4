"""A project as the application needs it: plain values, whatever object the user wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtb_prefect.domain.evaluation import EvaluatorSpec
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.workflow import VariantSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLocations:
    """Where a project keeps its things; all paths absolute."""

    database_url: str
    checkpoints: Path
    output_dir: Path
    workspace: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectDefinition:
    """Graph, variants, evaluators and locations of one project."""

    name: str
    graph: Any
    import_path: str | None
    variants: tuple[VariantSpec, ...]
    evaluators: tuple[EvaluatorSpec, ...]
    locations: ProjectLocations
    allowed_types: tuple[type, ...] = ()
    recursion_limit: int = 25

    @property
    def workflow_id(self) -> str:
        """The same in every process, so that a project is registered once."""
        return stable_id("workflow", self.name)
