"""A project with everything that an audit looks into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wtb_prefect.application.integrity.audit_stores import AuditStores
from wtb_prefect.bootstrap.garbage import open_garbage
from wtb_prefect.bootstrap.stores import open_stores
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.infrastructure.processes import is_alive


@contextmanager
def open_audit(where: ProjectLocations) -> Iterator[AuditStores]:
    """Opens all stores; closes what it opened.

    Raises:
        InfrastructureError: one cannot be opened.
    """
    with open_stores(where) as stores, open_garbage(where) as garbage:
        folders = [where.output_dir / "workspaces"]
        if where.workspace is not None:
            folders.append(where.workspace)
        yield AuditStores(
            open_uow=stores.open_uow,
            checkpoints=stores.checkpoints,
            blobs=garbage.blobs,
            garbage=garbage,
            copies=folders,
            clock=stores.clock,
            is_alive=is_alive,
        )
