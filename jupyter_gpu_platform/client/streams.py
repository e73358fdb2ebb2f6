"""Following a log over connections that break: each follower knows the cursor from which the next one goes on.

No I/O here. A client asks `call` what to request, feeds what arrives, and asks again after a cut; a line that was
cut in half is dropped with its connection, and comes whole from the cursor, so nothing is lost or doubled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import msgspec

from . import protocol

_decode_record = msgspec.json.Decoder(protocol.Record).decode
_decode_change = msgspec.json.Decoder(protocol.Change).decode

T = TypeVar("T")


class Lines:
    """Cuts a byte stream into whole lines; blank ones, which keep connections alive, are left out."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        end = chunk.rfind(b"\n")
        if end < 0:
            self._rest += chunk
            return []
        whole = bytes(self._rest) + chunk[:end]
        self._rest = bytearray(chunk[end + 1 :])
        return [line for line in whole.split(b"\n") if line]


class Follower(ABC, Generic[T]):
    """What a client needs to follow one log."""

    def __init__(self) -> None:
        self._lines = Lines()
        #: the log is over: nothing more will come
        self.ended = False

    @abstractmethod
    def call(self) -> protocol.Call[None]:
        """Return the request that goes on from where this follower is."""

    def connected(self) -> None:
        """Forget the half line of the connection before."""
        self._lines = Lines()

    def closed(self) -> None:
        """Take note that the service has ended the answer in good order."""

    @abstractmethod
    def feed(self, chunk: bytes) -> list[T]:
        """Return what *chunk* completes."""


class OutputFollower(Follower[protocol.Record]):
    """A job's output, until the job has ended and all of it was sent."""

    def __init__(self, job_id: str, after: str = "") -> None:
        super().__init__()
        self._job_id = job_id
        self.cursor = after

    def call(self) -> protocol.Call[None]:
        return protocol.output_stream(self._job_id, self.cursor)

    def feed(self, chunk: bytes) -> list[protocol.Record]:
        records = []
        for line in self._lines.feed(chunk):
            record = _decode_record(line)
            self.cursor = record["cursor"]
            if record["type"] == "eof":
                self.ended = record["ended"]
            else:
                records.append(record)
        return records


class ChangeFollower(Follower[protocol.Change]):
    """The change log, for ever or up to now."""

    def __init__(self, after: int, *, follow: bool) -> None:
        super().__init__()
        self._follow = follow
        self.after = after

    def call(self) -> protocol.Call[None]:
        return protocol.change_stream(self.after, follow=self._follow)

    def closed(self) -> None:
        self.ended = not self._follow

    def feed(self, chunk: bytes) -> list[protocol.Change]:
        changes = [_decode_change(line) for line in self._lines.feed(chunk)]
        if changes:
            self.after = changes[-1].id
        return changes
