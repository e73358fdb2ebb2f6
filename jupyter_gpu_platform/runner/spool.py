"""The attempt's output on disk: append-only files of whole JSON lines, one record each.

A file is named by the seq of its first record. What the service has committed is deleted file by file; the rest is
what a new connection, or an agent that finds the supervisor dead, begins again from. Nothing is fsynced: the page
cache survives every death but the machine's own, and after that one nothing runs that could go on.
"""

from __future__ import annotations

import json
import os
import threading
import time

#: A file is closed, and a new one begun, once it is this long (bytes).
SEGMENT = 8 * 2**20
#: Kept aside so that a full disk can still be spoken of (bytes).
RESERVE = 64 * 2**10
#: so many records at most stand in at once for those that are gone
STAND_INS = 1000


class _Segment:
    def __init__(self, path: str, first: int) -> None:
        self.path = path
        self.first = first
        #: where each record begins, and where the last one ends
        self.offsets = [0]

    @property
    def next(self) -> int:
        return self.first + len(self.offsets) - 1

    @property
    def size(self) -> int:
        return self.offsets[-1]


class Spool:
    """One writer, any number of readers in threads.

    :param folder: made if it is missing; what an earlier process left there is recovered.
    """

    def __init__(self, folder: str, segment: int = SEGMENT) -> None:
        self._folder = folder
        self._limit = segment
        self._fd = -1
        self._segments: list[_Segment] = []
        #: the first seq that has not been trimmed
        self.first = 1
        #: the seq that the next record gets
        self.next = 1
        self.closed = False
        self.changed = threading.Condition()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        names = sorted(name for name in os.listdir(self._folder) if name.endswith(".ndjson"))
        for name in names:
            segment = _Segment(os.path.join(self._folder, name), int(name[: -len(".ndjson")]))
            if self._segments and segment.first != self.next:
                break  # a hole: what lies behind it can't be numbered truthfully
            with open(segment.path, "rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # half written when the writer died
                    segment.offsets.append(segment.size + len(line))
            os.truncate(segment.path, segment.size)
            self._segments.append(segment)
            self.next = segment.next
        if self._segments:
            self.first = self._segments[0].first

    def reserve(self) -> None:
        """Set room aside for the notice that the disk is full. :raises OSError: it is full already."""
        fd = os.open(os.path.join(self._folder, "reserve"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE)
        finally:
            os.close(fd)

    def release(self) -> None:
        """Give the reserved room back."""
        try:
            os.unlink(os.path.join(self._folder, "reserve"))
        except FileNotFoundError:
            pass

    def append(self, lines: list[bytes]) -> None:
        """Write whole lines, all or none.

        :raises OSError: the disk is full, or fails; nothing was written.
        """
        segment = self._writable()
        data = b"".join(lines)
        try:
            self._write(data)
        except OSError:
            os.ftruncate(self._fd, segment.size)
            raise
        with self.changed:
            position = segment.size
            for line in lines:
                position += len(line)
                segment.offsets.append(position)
            self.next = segment.next
            self.changed.notify_all()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _writable(self) -> _Segment:
        if self._fd >= 0 and self._segments and self._segments[-1].size < self._limit:
            return self._segments[-1]
        path = os.path.join(self._folder, "%020d.ndjson" % self.next)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        with self.changed:
            if not self._segments or self._segments[-1].path != path:
                self._segments.append(_Segment(path, self.next))
        return self._segments[-1]

    def read(self, seq: int, limit: int) -> tuple[int, bytes]:
        """Return (count, bytes) of the records from *seq* on: one at least, else up to *limit* bytes.

        In the place of what was trimmed others stand in: nobody asks for that unless the service lost what it had.
        """
        with self.changed:
            if seq < self.first:
                return _stand_ins(seq, self.first)
            segment = next((s for s in self._segments if s.first <= seq < s.next), None)
            if segment is None:
                return 0, b""
            begin = seq - segment.first
            end = begin + 1
            start = segment.offsets[begin]
            while end + 1 < len(segment.offsets) and segment.offsets[end + 1] - start <= limit:
                end += 1
            stop = segment.offsets[end]
            file = open(segment.path, "rb")
        with file:
            file.seek(start)
            return end - begin, file.read(stop - start)

    def trim(self, durable: int) -> None:
        """Delete what lies before *durable*, as far as whole files of it do; the last file stays."""
        with self.changed:
            while len(self._segments) > 1 and self._segments[0].next <= durable:
                os.unlink(self._segments.pop(0).path)
                self.first = self._segments[0].first

    def close(self) -> None:
        """Wake the readers for the last time."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _stand_ins(seq: int, end: int) -> tuple[int, bytes]:
    """Make records that show nothing, so that the numbers go on; the last before *end* says what is missing."""
    now = time.time()
    numbers = range(seq, min(end, seq + STAND_INS))
    records = [{"seq": number, "time": now, "type": "stream", "name": "stdout", "text": ""} for number in numbers]
    if numbers[-1] == end - 1:
        said = "the service's store was replaced by an older copy"
        records[-1] = {"seq": end - 1, "time": now, "type": "gap", "code": "store_restored", "message": said}
    return len(records), b"".join([json.dumps(record).encode() + b"\n" for record in records])
