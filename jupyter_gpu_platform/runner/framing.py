"""What the worker says to its supervisor: frames in a pipe, each written whole.

A frame of at most PIPE_BUF bytes is written by the kernel in one piece or not at all, so neither threads nor a
KeyboardInterrupt can tear it, and no lock is needed. Text goes as it is, which is what makes printing fast; all else
is JSON, in as many frames as it takes, joined again by its number.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
from typing import Any

#: kind, whether it is the message's last frame, length, number of the message
_HEADER = struct.Struct("<cBHI")
#: PIPE_BUF on Linux, less the header
_ROOM = 4096 - _HEADER.size

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

    def text(self, kind: bytes, text: str) -> None:
        """Send text at once: what was handed over survives the process."""
        data = text.encode("utf-8", "replace")
        if len(data) <= _ROOM:
            os.write(self._fd, _HEADER.pack(kind, 1, len(data), 0) + data)
        elif len(data) == len(text):
            self.data(kind, data)
        else:
            for start in range(0, len(text), _ROOM // 4):
                piece = text[start : start + _ROOM // 4].encode("utf-8", "replace")
                os.write(self._fd, _HEADER.pack(kind, 1, len(piece), 0) + piece)

    def data(self, kind: bytes, data: bytes) -> None:
        for start in range(0, len(data), _ROOM):
            piece = data[start : start + _ROOM]
            os.write(self._fd, _HEADER.pack(kind, 1, len(piece), 0) + piece)

    def message(self, encoded: bytes) -> None:
        """Send one encoded JSON object."""
        number = next(self._numbers) & 0xFFFFFFFF
        for start in range(0, len(encoded), _ROOM):
            piece = encoded[start : start + _ROOM]
            last = start + _ROOM >= len(encoded)
            os.write(self._fd, _HEADER.pack(JSON, last, len(piece), number) + piece)

    def send(self, **fields: Any) -> None:
        self.message(json.dumps(fields).encode())


class Reader:
    """The supervisor's end: bytes in, (kind, payload) out."""

    def __init__(self) -> None:
        self._rest = b""
        self._parts: dict[int, list[bytes]] = {}

    def feed(self, data: bytes) -> list[tuple[bytes, Any]]:
        """Return the complete messages in *data*: text of one kind in one piece, JSON decoded where it is valid."""
        if self._rest:
            data = self._rest + data
        found: list[tuple[bytes, Any]] = []
        pieces: list[bytes] = []
        before = b""
        position, end, head = 0, len(data), _HEADER.size
        unpack = _HEADER.unpack_from
        while end - position >= head:
            kind, last, length, number = unpack(data, position)
            begin = position + head
            if begin + length > end:
                break
            position = begin + length
            if kind != before:
                if pieces:
                    found.append((before, b"".join(pieces)))
                pieces, before = [], kind
            if kind != JSON:
                pieces.append(data[begin:position])
            else:
                self._join(found, number, last, data[begin:position])
        if pieces:
            found.append((before, b"".join(pieces)))
        self._rest = data[position:]
        return found

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
