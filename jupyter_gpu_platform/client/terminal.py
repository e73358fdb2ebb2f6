"""A job's records as a terminal shows them: streams as they are, everything else as its plain text or a note."""

from __future__ import annotations

import sys
from typing import TextIO

import msgspec

from ..model.records import decode_cursor
from ..model.units import format_size
from . import pictures
from .describing import printable
from .protocol import Record


class Terminal:
    """Writes records to stdout and stderr.

    What the job's code wrote is passed on as it is, colours and ``\\r`` included, as if it had run here; whatever
    else may hold foreign text (messages, prompts) is made printable first.

    :param job: the job whose records come; its pictures become files. Without it they are named only.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, job: str = "") -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._job = job
        self._line_begins = True
        self._attempt = 0

    def show(self, record: Record) -> None:
        attempt = record.get("attempt", 1)
        if self._attempt and attempt != self._attempt:
            self.note(f"[attempt {attempt}]")
        self._attempt = attempt
        match record["type"]:
            case "stream":
                self._write(self._err if record["name"] == "stderr" else self._out, record["text"])
            case "display" | "result":
                self._line(self._out, self._bundle(record))
            case "error":
                lines = record.get("traceback") or [f"{record['ename']}: {record['evalue']}"]
                self._line(self._err, "\n".join(lines))
            case "input":
                self.note(f"[it asks: {record['prompt']}]")
            case "gap":
                self.note(f"[output is missing here: {record['message']}]")

    def note(self, text: str) -> None:
        """Say something that is not the job's output, on a line of its own on stderr."""
        self._line(self._err, printable(text))

    def _line(self, stream: TextIO, text: str) -> None:
        self._write(stream, ("" if self._line_begins else "\n") + text + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        if text:
            stream.write(text)
            stream.flush()
            self._line_begins = text.endswith("\n")

    def _bundle(self, record: Record) -> str:
        """Return what stands for a MIME bundle: its plain text, a note on what can't be shown, or both."""
        data = record["data"]
        text = plain(data)
        if pictures.kind(data) is not None:
            note = self._picture(record)
        elif "text/html" in data and not text:
            size = format_size(len("".join(data["text/html"]).encode(errors="replace")))
            where = f": %gpu output {self._job}" if self._job else ""
            note = f"[HTML of {size}, which a notebook shows{where}]"
        elif text is None:
            note = f"[{printable(', '.join(sorted(data))) or 'nothing'}, which a notebook shows]"
        else:
            return text
        return f"{text} {note}" if text else note

    def _picture(self, record: Record) -> str:
        mime = pictures.kind(record["data"])
        if not self._job:
            return f"[{mime}]"
        try:
            return f"[{mime}: {pictures.keep(record['data'], self._job, decode_cursor(record['cursor']))}]"
        except pictures.NotKept as error:
            return f"[{mime}, not kept: {error}]"


class Json:
    """Writes records as JSON, one a line; pictures stay what they are."""

    def show(self, record: Record) -> None:
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say something to a person, on stderr."""
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()


def plain(data: Record) -> str | None:
    """Return a MIME bundle's plain text; None where it has none."""
    text = data.get("text/plain")
    return "".join(text) if isinstance(text, list) else None if text is None else str(text)
