"""Plain text as the container's own log has it, so that a cluster's tools show what a job says."""

from __future__ import annotations

import os
from typing import Any


class Mirror:
    """Writes text to a descriptor and counts its bytes: by that a record is found again in the container's log."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.written = 0

    def write(self, text: str) -> int:
        """Write *text*; returns how many bytes have been written so far, this text included."""
        data = text.encode("utf-8", "replace")
        self.written += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            pass  # nobody reads it any more: the records themselves are what counts
        return self.written


def plain(fields: dict[str, Any]) -> str:
    """Say as text what a record shows; empty where it shows nothing."""
    kind = fields["type"]
    if kind == "stream":
        return str(fields["text"])
    if kind == "error":
        return "\n".join(map(str, fields.get("traceback") or ())) + "\n"
    if kind in ("display", "result"):
        text = (fields.get("data") or {}).get("text/plain")
        return "" if text is None else "%s\n" % text
    return ""
