"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade(part: str) -> None:
    if part == "control":
        _control_jobs()
        _control_clusters()
    else:
        _output()


def _scope() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, nullable=False) for name in ("organisation", "project", "owner")]


def _payload() -> list[sa.Column[object]]:
    return [
        sa.Column("payload_version", sa.Integer, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    ]


def _control_jobs() -> None:
    op.create_table(
        "meta", sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
    )
    op.create_table(
        "change",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("object_id", sa.String, nullable=False),
        *_scope(),
        sa.Column("cluster", sa.String, nullable=False),
        *_payload(),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String, primary_key=True),
        *_scope(),
        sa.Column("phase", sa.String, nullable=False),
        sa.Column("cluster", sa.String),
        sa.Column("name", sa.String, nullable=False),
        *_payload(),
    )
    op.create_index("job_by_owner", "job", ["owner", "id"])
    op.create_index("job_by_project", "job", ["organisation", "project", "id"])
    op.create_index("job_by_phase", "job", ["phase", "id"])
    op.create_table(
        "job_label",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    op.create_index("job_label_by_value", "job_label", ["key", "value", "job"])
    op.create_table(
        "event",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("event_by_job", "event", ["job", "id"])
    op.create_table(
        "attempt",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        *_scope(),
        sa.Column("cluster", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("forgotten", sa.Boolean, nullable=False),
        *_payload(),
    )
    op.create_index("attempt_by_cluster", "attempt", ["cluster", "forgotten"])
    op.create_index("attempt_by_state", "attempt", ["state"])
    op.create_table(
        "remembered",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_index("remembered_by_age", "remembered", ["created"])


def _control_clusters() -> None:
    op.create_table(
        "cluster",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("organisation", sa.String, nullable=False),
        *_payload(),
    )
    op.create_table(
        "agent",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("cluster", sa.String, nullable=False),
        sa.Column("credential_hash", sa.String, nullable=False, unique=True),
        *_payload(),
    )
    op.create_index("agent_by_cluster", "agent", ["cluster"])
    op.create_table(
        "join_token",
        sa.Column("hash", sa.String, primary_key=True),
        sa.Column("cluster", sa.String, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_table(
        "api_token",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("hash", sa.String, nullable=False, unique=True),
        *_payload(),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("holder_id", sa.String, nullable=False),
        sa.Column("holder_url", sa.String, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_table(
        "unknown_attempt",
        sa.Column("cluster", sa.String, primary_key=True),
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("incarnation", sa.String, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
    )


def _output() -> None:
    op.create_table(
        "output_job",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("newest_attempt", sa.Integer, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "output_stream",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("replica", sa.Integer, primary_key=True),
        sa.Column("execution", sa.Integer, primary_key=True),
        sa.Column("incarnation", sa.String, nullable=False),
        sa.Column("cluster", sa.String, nullable=False),
        sa.Column("next_seq", sa.BigInteger, nullable=False),
        sa.Column("max_bytes", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("cut", sa.Boolean, nullable=False),
    )
    op.create_table(
        "output_chunk",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("last", sa.BigInteger, primary_key=True),
        sa.Column("records", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("replica", sa.Integer, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "output_segment",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("last", sa.BigInteger, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("index", sa.LargeBinary, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        # The chunks are compressed already; the server's own compression would only slow it down.
        op.execute("ALTER TABLE output_chunk ALTER COLUMN data SET STORAGE EXTERNAL")
