"""The worker's sys.stdout and sys.stderr: each write is handed to the supervisor at once, in order with displays."""

from __future__ import annotations

import io
import os
from typing import Any

from . import framing


class _Bytes(io.RawIOBase):
    """The ``.buffer`` that programs write bytes to."""

    def __init__(self, writer: framing.Writer, kind: bytes, fd: int) -> None:
        super().__init__()
        self._writer = writer
        self._kind = kind
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: Any) -> int:
        data = bytes(data)
        if self._writer.ours:
            self._writer.data(self._kind, data)
        else:
            os.write(self._fd, data)
        return len(data)


class Stream(io.TextIOBase):
    """Text that goes to the supervisor; from a fork of the worker it goes to the file descriptor instead."""

    encoding = "UTF-8"  # written as in a kernel
    errors = "replace"
    newlines = None
    line_buffering = True
    mode = "w"

    def __init__(self, writer: framing.Writer, name: str) -> None:
        super().__init__()
        out = name == "stdout"
        self.name = "<%s>" % name
        self._writer = writer
        self._fd = 1 if out else 2
        self._kind = framing.OUT_TEXT if out else framing.ERR_TEXT
        self._bytes = _Bytes(writer, framing.OUT_BYTES if out else framing.ERR_BYTES, self._fd)

    @property
    def buffer(self) -> Any:
        return self._bytes

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fd

    def flush(self) -> None:
        pass  # nothing is ever held

    def close(self) -> None:
        pass  # as in a kernel: what the cell prints after closing it must still show

    def reconfigure(self, **kwargs: Any) -> None:
        pass

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        data = text.encode("utf-8", "replace")
        if self._writer.ours:
            self._writer.text(self._kind, data)
        else:
            os.write(self._fd, data)
        return len(text)
