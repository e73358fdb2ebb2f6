"""Pictures of a job's output, kept as files so that a terminal can name what it can't show.

They lie in a private directory of the user's cache, named for the job and the record's place in its output: reading
the same output again finds the same file. The directory is bounded: the oldest pictures make room for new ones.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import runtime

#: MIME type → ending, the best first
KINDS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/svg+xml": "svg",
    "application/pdf": "pdf",
}
#: bytes that one picture and all of them together may have
LARGEST, ALL = 32 * 2**20, 256 * 2**20
#: how many are kept at the most
COUNT = 1000


class NotKept(Exception):
    """A picture could not be made a file; the message says why."""


def directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where pictures are kept."""
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jupyter-gpu-platform" / "pictures"


def kind(data: Mapping[str, Any]) -> str | None:
    """Return the MIME type of the picture that a bundle holds; None where there is none."""
    return next((name for name in KINDS if name in data), None)


def keep(data: Mapping[str, Any], job: str, place: int) -> Path:
    """Make the picture in a MIME bundle a file, and return its path.

    :param place: of its record in the job's output, from 1.
    :raises NotKept: it is damaged or too large, or the disk doesn't take it.
    """
    mime = kind(data)
    if mime is None or not re.fullmatch(r"[0-9a-z]+", job):
        raise NotKept("it has no name")
    content = _content(mime, data[mime])
    if len(content) > LARGEST:
        raise NotKept(f"it is larger than {LARGEST // 2**20} MiB")
    path = directory() / f"{job}-{place}.{KINDS[mime]}"
    try:
        if not path.exists() or path.stat().st_size != len(content):
            _make_room(path.parent, len(content))
            runtime.write_private(path, content)
    except OSError as error:
        raise NotKept(f"{path}: {error.strerror}") from error
    return path


def _content(mime: str, value: Any) -> bytes:
    text = "".join(value) if isinstance(value, list) else str(value)
    if mime == "image/svg+xml":
        return text.encode(errors="replace")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotKept("its data is damaged") from error


def _make_room(folder: Path, size: int) -> None:
    """Remove the oldest pictures until one more of *size* bytes has its place."""
    if not folder.is_dir():
        return
    found = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(folder))
    total = size + sum(length for _, length, _ in found)
    for number, (_, length, path) in enumerate(found):
        if total <= ALL and len(found) - number < COUNT:
            return
        Path(path).unlink(missing_ok=True)
        total -= length
