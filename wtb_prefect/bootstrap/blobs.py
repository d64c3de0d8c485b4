"""Where the contents of a project's files are."""

from __future__ import annotations

from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.infrastructure.file_tracking.blob_store import LocalBlobStore


def open_blobs(where: ProjectLocations) -> BlobStore:
    """The blob store of a project, which knows of the project's ledger from then on.

    Raises:
        FileTrackingError: it cannot be opened.
    """
    store = LocalBlobStore(where.output_dir / "blobs")
    # Whoever removes what nothing names has to ask all that may name it.
    store.register_ledger(where.database_url)
    return store
