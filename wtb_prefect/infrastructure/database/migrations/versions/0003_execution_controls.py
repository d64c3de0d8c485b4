"""Single executions can be controlled: their owner, what was asked of them, their breakpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "execution_controls",
        sa.Column("execution_id", sa.String(), nullable=False),
        sa.Column("owner_host", sa.String()),
        sa.Column("owner_pid", sa.BigInteger()),
        sa.Column("owner_started", sa.Double()),
        sa.Column("asked", sa.String()),
        sa.Column("breakpoints", sa.Text(), nullable=False),
        sa.Column("graph", sa.String()),
        sa.Column("encoding", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.execution_id"],
            name=op.f("fk_execution_controls_execution_id_executions"),
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_execution_controls")),
    )
