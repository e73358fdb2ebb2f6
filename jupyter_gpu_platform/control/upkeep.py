"""What ``jupyter gpu control`` does instead of serving: ``--check``, ``--backup``, ``--restore`` and ``--restored``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .backup import backup, renew, restore
from .checking import check
from .server import Settings
from .store.database import Database, translated

#: exit code of a check that found something
WRONG = 2
#: so many findings are shown
SHOWN = 100


def show_check(settings: Settings) -> int:
    """Say what is wrong with a store; returns the exit code."""
    database = Database.inspect(settings.database_url)
    try:
        with translated():
            found = check(database, settings.segments_url, settings.objects_url)
    finally:
        database.close()
    for finding in found[:SHOWN]:
        _say(f"{finding.code}: {finding.what}\n    {finding.fix}")
    if len(found) > SHOWN:
        _say(f"… and {len(found) - SHOWN} more")
    _say(f"{len(found)} found to be wrong." if found else "The store is as it should be.")
    return WRONG if found else 0


def make_backup(settings: Settings, directory: str) -> int:
    """Copy a store; returns the exit code."""
    target = Path(directory).expanduser().absolute()
    made = backup(settings.database_url, settings.segments_url, settings.objects_url, target)
    _say(f"{made.jobs} jobs and {made.files} files ({made.bytes} bytes) are in {target}.")
    return 0


def put_back(settings: Settings, directory: str) -> int:
    """Put a backup in the place of a store; returns the exit code."""
    source = Path(directory).expanduser().absolute()
    manifest, aside = restore(source, settings.database_url, settings.segments_url, settings.objects_url)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.created))
    _say(f"Restored the backup of {made} with {manifest.jobs} jobs.")
    if aside is not None:
        _say(f"What was there before is in {aside}: remove it when you need it no more.")
    _say("Attempts that it knows nothing of go on; `jupyter gpu unknown` lists them.")
    return 0


def mark_restored(settings: Settings) -> int:
    """Note that a store was put back by other means; returns the exit code."""
    database = Database.inspect(settings.database_url)
    try:
        with translated(), database.write() as connection:
            renew(connection, time.time())
    finally:
        database.close()
    _say("The store counts as a restored one.")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stdout)  # noqa: T201 -- for people
