"""A job's records as a terminal shows them: streams as they are, everything else as its plain text."""

from __future__ import annotations

import sys
from typing import TextIO

import msgspec

from .protocol import Record


class Terminal:
    """Writes records to stdout and stderr."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._line_begins = True
        self._attempt = 0

    def show(self, record: Record) -> None:
        attempt = record.get("attempt", 1)
        if self._attempt and attempt != self._attempt:
            self._line(self._err, f"[attempt {attempt}]")
        self._attempt = attempt
        match record["type"]:
            case "stream":
                self._write(self._err if record["name"] == "stderr" else self._out, record["text"])
            case "display" | "result":
                self._line(self._out, plain(record["data"]))
            case "error":
                lines = record.get("traceback") or [f"{record['ename']}: {record['evalue']}"]
                self._line(self._err, "\n".join(lines))
            case "gap":
                self._line(self._err, f"[output is missing here: {record['message']}]")

    def _line(self, stream: TextIO, text: str) -> None:
        self._write(stream, ("" if self._line_begins else "\n") + text + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        if text:
            stream.write(text)
            stream.flush()
            self._line_begins = text.endswith("\n")


class Json:
    """Writes records as JSON, one a line."""

    def show(self, record: Record) -> None:
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        sys.stdout.flush()


def plain(data: Record) -> str:
    """Return a MIME bundle's plain text, or the names of what it holds."""
    text = data.get("text/plain")
    if text is None:
        return f"<{', '.join(sorted(data)) or 'nothing'}>"
    return "".join(text) if isinstance(text, list) else str(text)
