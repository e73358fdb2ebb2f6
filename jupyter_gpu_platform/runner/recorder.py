"""Turns output into numbered records: batches text, keeps order, and cuts at the limit.

The first output after a pause is recorded at once, so that a cell feels live; what follows within a tenth of a second
is joined, since thousands of tiny records are slow everywhere behind this.
"""

from __future__ import annotations

import codecs
import errno
import json
import time
from typing import Any, Callable

from .mirror import Mirror, plain

#: seconds between batches of text
PAUSE = 0.1
#: seconds that an unfinished line may wait for its end, which `print` writes separately
LINE_PAUSE = 0.01
#: Text is recorded at once when this much of it waits (bytes). A record costs agent and service more than a transaction
#: costs them each, so a fast job writes few and large ones; a slow one's are no later for it.
BATCH = 2**20
#: the longest record: the agent connection carries messages of 8 MiB (bytes)
LARGEST = 7 * 2**20
#: bytes of error text that survive in a record that would be too long
ERROR_TEXT = 2**20
#: kept free of output below the limit, so that the notice, an error and the exit record always fit (bytes)
TAIL = 64 * 2**10

TYPES = frozenset(["display", "clear", "result", "error", "comm", "payload", "input", "input_reply", "values"])
#: What output over the limit doesn't cut: few, and readers wait for them.
UNCUT = frozenset(["error", "input", "input_reply", "values"])
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def size_in_words(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return "%d %s" % (count, unit) if unit == "bytes" else "%.1f %s" % (count, unit)
        count /= 1024.0
    return "%.1f GiB" % count


class Recorder:
    """Numbers records and appends them to *spool*.

    While the disk is full, `blocked` is true: nothing is lost, records wait in memory, and the caller stops reading
    from the user's code until `retry` says that the disk has room again.
    """

    def __init__(
        self,
        spool: Any,
        mirror: Mirror | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._mirror = mirror
        self._clock = clock
        self._now = now
        self._decoders: dict[tuple[str, str], codecs.IncrementalDecoder] = {}
        self._text: list[tuple[str, tuple[str, str], list[bytes]]] = []
        self._waiting = 0
        self._arrived = 0.0
        self._flushed = -PAUSE
        self._lines: list[bytes] = []
        self._seq: int = spool.next
        self._written = 0
        self._limit = 0
        self._cut = False
        self.blocked = False
        self._blocked_since = 0.0
        #: the exit record was given
        self._over = False
        #: (ename, evalue) of the last error record
        self.last_error: tuple[str, str] | None = None

    def limit(self, count: int) -> None:
        """Set how many bytes of records the attempt may write; 0: any."""
        self._limit = count

    @property
    def last_seq(self) -> int:
        return self._seq - 1

    # --- text

    def text(self, name: str, source: tuple[str, str], data: bytes) -> None:
        """Take bytes of the stream *name*; *source* tells apart places that may each stop amid a character."""
        if self._text and self._text[-1][0] == name and self._text[-1][1] == source:
            self._text[-1][2].append(data)
        else:
            self._text.append((name, source, [data]))
        if not self._waiting:
            self._arrived = self._clock()
        self._waiting += len(data)
        if self._waiting >= BATCH:
            self.flush()

    def deadline(self) -> float | None:
        """When waiting text is due, by the monotonic clock; None when nothing waits."""
        if not self._text:
            return None
        due = self._flushed + PAUSE
        return due if self._text[-1][2][-1].endswith(b"\n") else max(due, self._arrived + LINE_PAUSE)

    def tick(self) -> None:
        """Record waiting text that is due."""
        due = self.deadline()
        if due is not None and self._clock() >= due:
            self.flush()

    def flush(self, final: bool = False) -> None:
        """Record all waiting text; with *final*, the beginnings of characters that never came as well."""
        pending, self._text, self._waiting = self._text, [], 0
        if final:
            pending = pending + [(source[0], source, [b""]) for source in list(self._decoders)]
        merged: list[tuple[str, list[str]]] = []
        for name, source, pieces in pending:
            decoder = self._decoders.get(source)
            if decoder is None:
                decoder = self._decoders[source] = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(b"".join(pieces), final)
            if merged and merged[-1][0] == name:
                merged[-1][1].append(text)
            elif text:
                merged.append((name, [text]))
        for name, texts in merged:
            self._stream(name, "".join(texts))
        self._flushed = self._clock()
        self._store()

    def _stream(self, name: str, text: str) -> None:
        # A character is at most six bytes in JSON (\\u0000), and records should stay far below the largest.
        step = 2**20
        for start in range(0, len(text), step):
            self._add({"type": "stream", "name": name, "text": text[start : start + step]})

    # --- everything else

    def message(self, fields: dict[str, Any]) -> None:
        """Record what the worker showed; text that came before it is recorded before it."""
        if fields.get("type") not in TYPES:
            return
        if self._text:
            self.flush()
        if fields["type"] == "error":
            self.last_error = (str(fields.get("ename", "")), str(fields.get("evalue", "")))
        self._add(fields)
        self._store()

    def notice(self, name: str, text: str) -> None:
        """Record a line of our own in a stream."""
        self.flush()
        self._add({"type": "stream", "name": name, "text": text})
        self._store()

    def gap(self, code: str, message: Any) -> None:
        """Record that output is missing here, and why."""
        self.flush()
        self._line({"type": "gap", "code": code, "message": message})
        self._store()

    def exit(self, exit_code: int | None, signal: int | None, reason: dict[str, Any] | None) -> None:
        """Record the end; nothing comes after it."""
        self.flush(final=True)
        self._line({"type": "exit", "exit_code": exit_code, "signal": signal, "reason": reason})
        self._over = True
        self._store()

    def _add(self, fields: dict[str, Any]) -> None:
        if self._mirror is not None:
            text = plain(fields)
            # Before it is kept: what nobody has received yet can then be found in the container's log.
            fields = dict(fields, mirrored=self._mirror.write(text)) if text else fields
        if self._cut and fields["type"] not in UNCUT:
            return
        line = self._encode(fields)
        if len(line) > LARGEST:
            fields = self._shorten(fields, len(line))
            line = self._encode(fields)
        room = self._limit - min(TAIL, self._limit // 4)
        if self._limit and not self._cut and self._written + len(line) > room:
            self._cut = True
            said = "the job's output is longer than its limit of %s; the rest of it is dropped" % size_in_words(
                self._limit
            )
            self._line({"type": "gap", "code": "output_limit", "message": said})
            if fields["type"] not in UNCUT:
                return
            line = self._encode(fields)
        self._take(line)

    def _shorten(self, fields: dict[str, Any], length: int) -> dict[str, Any]:
        if fields["type"] != "error":
            said = "a %s of %s was left out: one record may hold %s" % (
                fields["type"],
                size_in_words(length),
                size_in_words(LARGEST),
            )
            return {"type": "gap", "code": "record_too_large", "message": said}
        lines = "\n".join(map(str, fields.get("traceback", ())))[:ERROR_TEXT].split("\n")
        evalue = str(fields.get("evalue", ""))[:ERROR_TEXT]
        return {"type": "error", "ename": str(fields.get("ename", "")), "evalue": evalue, "traceback": lines}

    def _encode(self, fields: dict[str, Any]) -> bytes:
        record = {"seq": self._seq, "time": round(self._now(), 6)}
        record.update(fields)
        record["seq"] = self._seq
        # A lone surrogate has no UTF-8 form; a question mark has.
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"

    def _line(self, fields: dict[str, Any]) -> None:
        self._take(self._encode(fields))

    def _take(self, line: bytes) -> None:
        self._lines.append(line)
        self._seq += 1
        self._written += len(line)

    # --- the disk

    def _store(self) -> None:
        if not self._lines or self.blocked:
            return
        try:
            self._spool.append(self._lines)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._block(error)
            return
        self._lines = []

    def _block(self, error: Any) -> None:
        self.blocked = True
        self._blocked_since = self._clock()
        said = "the disk for output is full (%s): the job is held until there is room; nothing is lost" % error.strerror
        # The notice takes the number of the first line that waits, and those move up by one: written lines come first.
        waiting, self._lines = self._lines, []
        self._seq -= len(waiting)
        notice = self._encode({"type": "gap", "code": "spool_full", "message": said})
        self._spool.release()
        try:
            self._spool.append([notice])
            self._seq += 1
        except OSError:
            pass  # not even the reserve was enough: it is said once there is room
        for line in waiting:
            fields = json.loads(line.decode())
            self._lines.append(self._encode(fields))
            self._seq += 1

    def retry(self) -> bool:
        """Try the disk again; returns whether it has room."""
        if not self.blocked:
            return True
        try:
            self._spool.append(self._lines)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return False
        self._lines = []
        self.blocked = False
        if not self._over:  # nothing comes after the exit record
            held = self._clock() - self._blocked_since
            self._line({"type": "gap", "code": "spool_full", "message": "the disk has room again after %.0f s" % held})
            self._store()
        return True
