"""The files of a project alone."""

from __future__ import annotations

from wtb_prefect.bootstrap.blobs import open_blobs
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.infrastructure.file_tracking.tracker import LocalFileTracker


def open_tracker(where: ProjectLocations) -> FileTracker:
    """Blobs of a project. Raises `FileTrackingError`: they cannot be opened."""
    return LocalFileTracker(open_blobs(where))
