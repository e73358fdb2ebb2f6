"""Objects: values in and out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade(part: str) -> None:
    if part != "control":
        return
    op.create_table(
        "object",
        sa.Column("organisation", sa.String, primary_key=True),
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("used", sa.Float, nullable=False),
    )
    op.create_index("object_by_digest", "object", ["digest"])
    op.create_index("object_by_use", "object", ["used"])
    op.create_table(
        "job_object",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("organisation", sa.String, primary_key=True),
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("digest", sa.String, primary_key=True),
    )
    op.create_index("job_object_by_object", "job_object", ["organisation", "owner", "digest"])
