"""Where supervisors of this machine meet their agent: a Unix socket that only this user can reach."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

#: the longest path of a Unix socket, less a little (bytes)
LONGEST_PATH = 100


def socket_path(state_dir: Path) -> Path:
    """Say where the socket lies: the same place for each agent of *state_dir*, since supervisors outlive agents."""
    path = state_dir / "link" / "socket"
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    name = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"jgp-{os.getuid()}-{name}" / "socket"


def private_folder(folder: Path) -> None:
    """Make a folder that nobody else can enter.

    :raises PermissionError: it is there already and somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)
