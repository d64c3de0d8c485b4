"""The ledger's tables, in types every SQL database has.

Foreign keys are checked at commit, so that a unit of work may write its rows in any order.
JSON and times are text (see `codecs`).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Json = Text
Time = String(32)
# SQLite gives numbers by itself only to a column declared exactly INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


def _reference(column: str, *, ondelete: str | None = None) -> ForeignKey:
    return ForeignKey(column, ondelete=ondelete, deferrable=True, initially="DEFERRED")


workflows = Table(
    "workflows",
    metadata,
    Column("workflow_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("import_path", String),
    Column("fingerprint", String, nullable=False),
    Column("nodes", Json, nullable=False),
    Column("edges", Json, nullable=False),
)

variants = Table(
    "variants",
    metadata,
    Column("variant_id", String, primary_key=True),
    Column("workflow_id", String, _reference("workflows.workflow_id"), nullable=False),
    Column("node", String, nullable=False),
    Column("name", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("version", String),
    Column("location", String, nullable=False),
    UniqueConstraint("workflow_id", "node", "name", "fingerprint"),
)

batch_tests = Table(
    "batch_tests",
    metadata,
    Column("batch_id", String, primary_key=True),
    Column("workflow_id", String, _reference("workflows.workflow_id"), nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("status", String, nullable=False),
    Column("request", Json, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("runner", String),
    Column("owner_host", String),
    Column("owner_pid", BigInteger),
    Column("owner_started", Double),
    Column("started_at", Time),
    Column("finished_at", Time),
    Column("node_executions", BigInteger, nullable=False),
)

cases = Table(
    "cases",
    metadata,
    Column("batch_id", String, _reference("batch_tests.batch_id"), nullable=False),
    Column("case_id", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("encoding", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("batch_id", "case_id"),
)

cells = Table(
    "cells",
    metadata,
    Column("cell_id", String, primary_key=True),
    Column("batch_id", String, _reference("batch_tests.batch_id"), nullable=False),
    Column("combination", String, nullable=False),
    Column("case_id", String, nullable=False),
    Column("repeat", Integer, nullable=False),
    Column("key", String, nullable=False),
    Column("fingerprints", Json, nullable=False),
    Column("status", String, nullable=False),
    Column("execution_id", String, _reference("executions.execution_id"), index=True),
    Column("adopted_from", String),
    Column("unshared_reason", Text),
    Column("stale", Json, nullable=False, server_default="[]"),
    UniqueConstraint("batch_id", "case_id", "repeat", "combination"),
    Index(None, "key", "status"),
)

executions = Table(
    "executions",
    metadata,
    Column("execution_id", String, primary_key=True),
    Column("workflow_id", String, _reference("workflows.workflow_id"), nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("status", String, nullable=False),
    Column("choices", Json, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("batch_id", String, _reference("batch_tests.batch_id"), index=True),
    Column("case_id", String),
    Column("repeat", Integer, nullable=False),
    Column("path", Json, nullable=False),
    Column("gated", Json, nullable=False),
    Column("parent_id", String, _reference("executions.execution_id"), index=True),
    Column("parent_checkpoint_id", String),
    Column("parent_commit_id", String, _reference("file_commits.commit_id")),
    Column("head", String),
    Column("step", Integer, nullable=False),
    Column("commit_id", String, _reference("file_commits.commit_id")),
    Column("split_nodes", Json, nullable=False),
    Column("next_nodes", Json, nullable=False),
    Column("error", Json),
    Column("unshared_reason", Text),
    Column("node_executions", BigInteger, nullable=False),
    Column("cache_hits", BigInteger, nullable=False, server_default="0"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("answers", Json, nullable=False, server_default="{}"),
    Column("root_key", String, index=True),
    Column("inherited", Json),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("duration", Double, nullable=False),
    Column("finished_at", Time),
    Column("metadata", Json, nullable=False),
)

_EXECUTION = "executions.execution_id"

# The order of recording is the primary key: appending to one table and one index is the least a
# step can cost, and a replaced row keeps its number.
node_boundaries = Table(
    "node_boundaries",
    metadata,
    Column("position", Serial, primary_key=True),
    Column("execution_id", String, _reference(_EXECUTION, ondelete="CASCADE"), nullable=False),
    Column("task_id", String, nullable=False),
    Column("node", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("variant", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("status", String, nullable=False),
    Column("entry_checkpoint_id", String),
    Column("exit_checkpoint_id", String),
    Column("started_at", Time, nullable=False),
    Column("duration", Double, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("error", Json),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("namespace", String, nullable=False, server_default=""),
    Column("cached", Boolean, nullable=False, server_default="0"),
    UniqueConstraint("execution_id", "task_id"),
)

# `parent_id` and `execution_id` are no foreign keys: a commit is named by its content, so it
# outlives the execution that made it first, and a broken chain is reported by whoever reads it.
file_commits = Table(
    "file_commits",
    metadata,
    Column("commit_id", String, primary_key=True),
    Column("parent_id", String),
    Column("execution_id", String),
    Column("created_at", Time, nullable=False),
)

# One row per changed path, then one per removed path (`blob_id` is null), in the commit's order.
file_mementos = Table(
    "file_mementos",
    metadata,
    Column(
        "commit_id",
        String,
        _reference("file_commits.commit_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("position", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("blob_id", String),
    Column("size", BigInteger),
    Column("mode", Integer),
    Column("is_symlink", Boolean),
    PrimaryKeyConstraint("commit_id", "position"),
)

checkpoint_files = Table(
    "checkpoint_files",
    metadata,
    Column("execution_id", String, _reference(_EXECUTION, ondelete="CASCADE"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("checkpoint_id", String, nullable=False),
    Column("commit_id", String, _reference("file_commits.commit_id")),
    Column("pending", Boolean, nullable=False),
    Column("step", Integer, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("parent_checkpoint_id", String),
    Column("nodes", Json, nullable=False),
    Column("namespace", String, nullable=False, server_default=""),
    Column("answers", Integer, nullable=False, server_default="0"),
    Column("exact", Boolean, nullable=False, server_default="1"),
    Column("store_id", String),
    PrimaryKeyConstraint("execution_id", "sequence"),
    # One tree instead of two: every page a step touches is written and flushed at its commit.
    sqlite_with_rowid=False,
)

execution_controls = Table(
    "execution_controls",
    metadata,
    Column("execution_id", String, _reference(_EXECUTION, ondelete="CASCADE"), primary_key=True),
    Column("owner_host", String),
    Column("owner_pid", BigInteger),
    Column("owner_started", Double),
    Column("asked", String),
    Column("breakpoints", Json, nullable=False),
    Column("graph", String),
    Column("encoding", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

node_results = Table(
    "node_results",
    metadata,
    Column("key", String, primary_key=True),
    Column("workflow_id", String, _reference("workflows.workflow_id"), nullable=False, index=True),
    Column("node", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("encoding", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("changed", Json, nullable=False),
    Column("removed", Json, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("execution_id", String, nullable=False),
)

evaluation_results = Table(
    "evaluation_results",
    metadata,
    Column("execution_id", String, _reference(_EXECUTION, ondelete="CASCADE"), nullable=False),
    Column("evaluator", String, nullable=False),
    Column("metric", String, nullable=False),
    Column("number", Double),
    Column("label", Text),
    Column("goal", String, nullable=False),
    Column("primary", Boolean, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("error", Text),
    Column("traceback", Text),
    PrimaryKeyConstraint("execution_id", "evaluator", "metric"),
)

outbox_events = Table(
    "outbox_events",
    metadata,
    Column("sequence", Serial, primary_key=True),
    Column("event_id", String, nullable=False),
    Column("type", String, nullable=False),
    Column("aggregate_id", String, nullable=False),
    Column("payload", Json, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("status", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Time),
    Column("lease_until", Time),
    Column("processed_at", Time),
    Column("last_error", Text),
    UniqueConstraint("event_id"),
    Index(None, "status", "sequence"),
    # Only what is pending is looked for by its aggregate.
    Index(
        None,
        "aggregate_id",
        "sequence",
        sqlite_where=text("status = 'PENDING'"),
        postgresql_where=text("status = 'PENDING'"),
    ),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("sequence", Serial, primary_key=True),
    Column("at", Time, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("details", Json, nullable=False),
    Index(None, "subject", "sequence"),
)


def row_columns(table: Table) -> list[Column[object]]:
    """The columns of a row as `rows` makes it: all but the number the database gives."""
    return [column for column in table.columns if column.type is not Serial]
