"""Objects between this process and the platform: sent in small pieces, received into a file that is whole or absent."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .. import errors

#: bytes sent and received at once
PIECE = 2**20

#: gives an object's bytes from the beginning, each time it is called
Chunks = Callable[[], Iterable["bytes | memoryview"]]


def pieces(chunks: Chunks) -> Iterator[bytes]:
    """Cut chunks, of which one may be a whole array's memory, into pieces: no second copy of all of it is made."""
    for chunk in chunks():
        view = memoryview(chunk).cast("B")
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])


async def pieces_async(chunks: Chunks) -> AsyncIterator[bytes]:
    for piece in pieces(chunks):
        yield piece


class Download:
    """An object on its way into a file. Nothing is at *path* before all of it has come and was checked."""

    def __init__(self, digest: str, path: Path) -> None:
        self._digest = digest
        self._path = path
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
            self._file = None

    def begin(self) -> None:
        """Begin, or begin anew."""
        self._drop()
        self._hash = hashlib.sha256()
        # Beside its place, so that it can be moved there in one step.
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 -- it is this object that is the context manager
            dir=self._path.parent, prefix=".download-", delete=False
        )

    def feed(self, piece: bytes) -> None:
        assert self._file is not None, "begin() comes first"
        self._file.write(piece)
        self._hash.update(piece)

    def finish(self) -> None:
        """Check what came and put it into its place.

        :raises InternalError: the platform sent something else.
        """
        assert self._file is not None, "begin() comes first"
        if self._hash.hexdigest() != self._digest:
            raise errors.InternalError(
                f"the platform sent other bytes than those of object {self._digest}", hint="Tell the platform's admin."
            )
        self._file.close()
        Path(self._file.name).replace(self._path)
        self._file = None
