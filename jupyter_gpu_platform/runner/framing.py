"""What the worker says to its supervisor: the text of its stdout as it is, and frames for all else, in one pipe.

What is at most PIPE_BUF bytes long is written by the kernel in one piece or not at all, so neither threads nor a
KeyboardInterrupt can tear it, and no lock is needed. A frame begins with a byte that UTF-8 text never holds: so what
`print` writes, mostly very little at a time, costs no frame, and is found in one piece however often it was written.
Bytes, and the text of stderr, have a frame each; other things are JSON, in as many frames as it takes, joined again by
its number.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
from typing import Any

#: what each frame begins with
_MARK = b"\xff"
#: the mark, kind, whether it is the message's last frame, length, number of the message
_HEADER = struct.Struct("<ccBHI")
#: what a write may hold, to be whole (PIPE_BUF on Linux); and a frame, less its header
WHOLE = 4096
_ROOM = WHOLE - _HEADER.size

#: text of whole characters, and bytes that may end amid one, for each of the two streams
OUT_TEXT, ERR_TEXT, OUT_BYTES, ERR_BYTES, JSON = b"o", b"e", b"O", b"E", b"j"


def _no_number(_: Any) -> None:
    """NaN and infinities have no JSON form; readers behind us would refuse the whole line."""
    return


class Writer:
    """The worker's end. *fd* is blocking: a full pipe is how the supervisor holds user code back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        #: this is the process that owns the pipe; a fork of it must not write there
        self.ours = True
        self._numbers = itertools.count(1)
        os.register_at_fork(after_in_child=self._disown)

    def _disown(self) -> None:
        self.ours = False

    def text(self, kind: bytes, data: bytes) -> None:
        """Send text at once, as UTF-8: what was handed over survives the process."""
        if kind == OUT_TEXT and len(data) <= WHOLE:
            os.write(self._fd, data)
            return
        start = 0
        while start < len(data):
            end = _character_end(data, start + _ROOM)
            self._put(kind, data[start:end])
            start = end

    def data(self, kind: bytes, data: bytes) -> None:
        for start in range(0, len(data), _ROOM):
            self._put(kind, data[start : start + _ROOM])

    def message(self, encoded: bytes) -> None:
        """Send one encoded JSON object."""
        number = next(self._numbers) & 0xFFFFFFFF
        for start in range(0, len(encoded), _ROOM):
            self._put(JSON, encoded[start : start + _ROOM], start + _ROOM >= len(encoded), number)

    def send(self, **fields: Any) -> None:
        self.message(json.dumps(fields).encode())

    def _put(self, kind: bytes, data: bytes, last: bool = True, number: int = 0) -> None:
        head = b"" if kind == OUT_TEXT else _HEADER.pack(_MARK, kind, last, len(data), number)
        os.write(self._fd, head + data)


def _character_end(data: bytes, end: int) -> int:
    """Return the last place up to *end* where a character ends: what follows it is no byte within one."""
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


class Reader:
    """The supervisor's end: bytes in, (kind, payload) out."""

    def __init__(self) -> None:
        self._rest = b""
        self._parts: dict[int, list[bytes]] = {}

    def feed(self, data: bytes) -> list[tuple[bytes, Any]]:
        """Return what is complete in *data*; JSON is decoded, and left out where it is invalid."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        found: list[tuple[bytes, Any]] = []
        position = 0
        while position < len(data):
            frame = data.find(_MARK, position)
            if frame < 0:
                frame = len(data)
            if frame > position:
                found.append((OUT_TEXT, data[position:frame]))
            position = self._take_frame(found, data, frame)
            if position == frame:
                self._rest = data[frame:]
                break
        return found

    def _take_frame(self, found: list[tuple[bytes, Any]], data: bytes, position: int) -> int:
        """Take the frame that begins at *position*, if it is whole; return where it ends."""
        begin = position + _HEADER.size
        if begin > len(data):
            return position
        _, kind, last, length, number = _HEADER.unpack_from(data, position)
        end: int = begin + length
        if end > len(data):
            return position
        if kind == JSON:
            self._join(found, number, last, data[begin:end])
        else:
            found.append((kind, data[begin:end]))
        return end

    def _join(self, found: list[Any], number: int, last: int, payload: bytes) -> None:
        if not last:
            self._parts.setdefault(number, []).append(payload)
            return
        encoded = b"".join([*self._parts.pop(number, []), payload])
        try:
            message = json.loads(encoded.decode(), parse_constant=_no_number)
        except ValueError:
            return
        if isinstance(message, dict):
            found.append((JSON, message))
