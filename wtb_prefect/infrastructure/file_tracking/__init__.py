"""Files as content, on a local file system."""

from wtb_prefect.infrastructure.file_tracking.blob_store import LocalBlobStore
from wtb_prefect.infrastructure.file_tracking.tracker import LocalFileTracker

__all__ = ["LocalBlobStore", "LocalFileTracker"]
