"""Workflows and the variants of their nodes."""

from __future__ import annotations

import builtins
from collections.abc import Iterable

from sqlalchemy import bindparam, select

from wtb_prefect.domain.workflow import NodeVariant, TestWorkflow
from wtb_prefect.infrastructure.database import tables
from wtb_prefect.infrastructure.database.rows import (
    variant_of,
    variant_row,
    workflow_of,
    workflow_row,
)
from wtb_prefect.infrastructure.database.session import Session
from wtb_prefect.infrastructure.database.statements import upsert

_w = tables.workflows.c
_v = tables.variants.c

_WORKFLOWS = select(tables.workflows).order_by(_w.name, _w.workflow_id)
_WORKFLOW = select(tables.workflows).where(_w.workflow_id == bindparam("workflow_id"))
_SAVE_WORKFLOW = upsert(tables.workflows, "workflow_id")

_VARIANTS = (
    select(tables.variants)
    .where(_v.workflow_id == bindparam("workflow_id"))
    .order_by(_v.node, _v.name, _v.fingerprint)
)
_SAVE_VARIANT = upsert(tables.variants, "variant_id")


class SqlWorkflows:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, workflow_id: str) -> TestWorkflow | None:
        row = self._session.fetch_one(_WORKFLOW, workflow_id=workflow_id)
        return None if row is None else workflow_of(row)

    def list(self) -> builtins.list[TestWorkflow]:
        return [workflow_of(row) for row in self._session.fetch(_WORKFLOWS)]

    def save(self, workflow: TestWorkflow) -> None:
        self._session.write(_SAVE_WORKFLOW, workflow_row(workflow))


class SqlVariants:
    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, workflow_id: str) -> builtins.list[NodeVariant]:
        rows = self._session.fetch(_VARIANTS, {"workflow_id": workflow_id})
        return [variant_of(row) for row in rows]

    def save_many(self, variants: Iterable[NodeVariant]) -> None:
        self._session.write_many(_SAVE_VARIANT, [variant_row(variant) for variant in variants])
