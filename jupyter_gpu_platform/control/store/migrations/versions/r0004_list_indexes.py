"""Indexes for the list of jobs: each ends with (phase, id), so that a page is read from the newest end of a range."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade(part: str) -> None:
    if part != "control":
        return
    op.drop_index("job_by_owner", "job")
    op.drop_index("job_by_project", "job")
    op.create_index("job_by_owner", "job", ["organisation", "owner", "phase", "id"])
    op.create_index("job_by_project", "job", ["organisation", "project", "phase", "id"])
    op.create_index("job_by_cluster", "job", ["cluster", "phase", "id"])
