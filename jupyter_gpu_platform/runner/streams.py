"""The worker's sys.stdout and sys.stderr: each write is handed to the supervisor at once, in order with displays."""

import io
import os

from . import framing


class _Bytes(io.RawIOBase):
    """The ``.buffer`` that programs write bytes to."""

    def __init__(self, writer, kind, fd):
        super().__init__()
        self._writer = writer
        self._kind = kind
        self._fd = fd

    def writable(self):
        return True

    def fileno(self):
        return self._fd

    def write(self, data):
        data = bytes(data)
        if self._writer.is_ours():
            self._writer.data(self._kind, data)
        else:
            os.write(self._fd, data)
        return len(data)


class Stream(io.TextIOBase):
    """Text that goes to the supervisor; from a fork of the worker it goes to the file descriptor instead."""

    encoding = "utf-8"
    errors = "replace"
    newlines = None
    line_buffering = True
    mode = "w"

    def __init__(self, writer, name):
        super().__init__()
        out = name == "stdout"
        self.name = "<%s>" % name
        self._writer = writer
        self._fd = 1 if out else 2
        self._kind = framing.OUT_TEXT if out else framing.ERR_TEXT
        self._bytes = _Bytes(writer, framing.OUT_BYTES if out else framing.ERR_BYTES, self._fd)

    @property
    def buffer(self):
        return self._bytes

    def writable(self):
        return True

    def isatty(self):
        return False

    def fileno(self):
        return self._fd

    def flush(self):
        pass  # nothing is ever held

    def close(self):
        pass  # as in a kernel: what the cell prints after closing it must still show

    def reconfigure(self, **kwargs):
        pass

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        if self._writer.is_ours():
            self._writer.text(self._kind, text)
        else:
            os.write(self._fd, text.encode("utf-8", "replace"))
        return len(text)
