"""Where the contents of a project's files are."""

from __future__ import annotations

from pathlib import Path

from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.infrastructure.database.address import shown_url
from wtb_prefect.infrastructure.file_tracking.blob_store import LocalBlobStore


def open_blobs(where: ProjectLocations) -> BlobStore:
    """The blob store of a project, which knows of the project's ledger from then on.

    Raises:
        InvalidInputError: there is no library for its URL.
        FileTrackingError: it cannot be opened.
    """
    store = _store(where)
    # Whoever removes what nothing names has to ask all that may name it.
    store.register_ledger(shown_url(where.database_url))
    return store


def _store(where: ProjectLocations) -> BlobStore:
    scheme, _, rest = (where.blob_url or "").partition("://")
    if where.blob_url is None:
        return LocalBlobStore(where.output_dir / "blobs")
    if scheme in ("file", "local"):
        return LocalBlobStore(Path(rest))  # it syncs what it writes, which fsspec does not
    from wtb_prefect.infrastructure.file_tracking.fsspec_blob_store import (  # noqa: PLC0415 - optional
        FsspecBlobStore,
    )

    return FsspecBlobStore(where.blob_url)
