"""When a job ended, as a column: what retention goes by."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: so many jobs are read and written at once
_BATCH = 1000


class _Ended(msgspec.Struct):
    ended: float | None = None


def upgrade(part: str) -> None:
    if part != "control":
        return
    op.add_column("job", sa.Column("ended", sa.Float))
    _fill()
    known = sa.text("ended IS NOT NULL")
    op.create_index("job_by_end", "job", ["ended"], sqlite_where=known, postgresql_where=known)


def _fill() -> None:
    """Take the times out of the payloads, which had them all along."""
    connection = op.get_bind()
    job = sa.table("job", sa.column("id"), sa.column("payload"), sa.column("ended"))
    page = sa.select(job.c.id, job.c.payload).order_by(job.c.id).limit(_BATCH)
    fill = sa.update(job).where(job.c.id == sa.bindparam("_id")).values(ended=sa.bindparam("_ended"))
    decode = msgspec.json.Decoder(_Ended).decode
    after = ""
    while rows := connection.execute(page.where(job.c.id > after)).all():
        after = rows[-1].id
        ended = [(row.id, decode(bytes(row.payload)).ended) for row in rows]
        if known := [{"_id": job_id, "_ended": time} for job_id, time in ended if time is not None]:
            connection.execute(fill, known)
