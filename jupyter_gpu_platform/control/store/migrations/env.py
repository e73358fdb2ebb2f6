"""What alembic runs: one history for both sets of tables, each with a version table of its own (see `Database`)."""

from __future__ import annotations

from alembic import context

from jupyter_gpu_platform.control.store import tables

part: str = context.config.attributes["part"]
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata={"control": tables.control, "output": tables.output}[part],
    version_table=f"schema_version_{part}",
)
# The caller's transaction holds everything, the version table included.
context.run_migrations(part=part)
