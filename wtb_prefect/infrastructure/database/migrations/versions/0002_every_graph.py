"""Subgraph visits, answers, retries, roots that executions may go on from, node results, cells
that are kept although they are stale."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _executions()
    _cells()
    _node_boundaries()
    _checkpoint_files()
    _node_results()


def _add(table: str, *columns: sa.Column[Any]) -> None:
    for column in columns:
        op.add_column(table, column)


def _executions() -> None:
    _add(
        "executions",
        sa.Column("cache_hits", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("retries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("answers", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("root_key", sa.String()),
        sa.Column("inherited", sa.Text()),
    )
    op.create_index(op.f("ix_executions_root_key"), "executions", ["root_key"])


def _cells() -> None:
    _add("cells", sa.Column("stale", sa.Text(), nullable=False, server_default="[]"))


def _node_boundaries() -> None:
    _add(
        "node_boundaries",
        sa.Column("namespace", sa.String(), nullable=False, server_default=""),
        sa.Column("cached", sa.Boolean(), nullable=False, server_default="0"),
    )


def _checkpoint_files() -> None:
    _add(
        "checkpoint_files",
        sa.Column("namespace", sa.String(), nullable=False, server_default=""),
        sa.Column("answers", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("exact", sa.Boolean(), nullable=False, server_default="1"),
        sa.Column("store_id", sa.String()),
    )


def _node_results() -> None:
    op.create_table(
        "node_results",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("workflow_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("encoding", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("changed", sa.Text(), nullable=False),
        sa.Column("removed", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("execution_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["workflows.workflow_id"],
            name=op.f("fk_node_results_workflow_id_workflows"),
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_node_results")),
    )
    op.create_index(op.f("ix_node_results_workflow_id"), "node_results", ["workflow_id"])
