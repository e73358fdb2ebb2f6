"""Objects' bytes: one file each, at any fsspec URL.

Each upload has a name of its own, random and with the time in it, and the object's row says which name counts. So two
uploads of the same bytes never write one file, a file is complete before any row names it, and one that no row came
to name (the service was killed) can be told by its age.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ... import errors


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Let the storage's errors inside become ours."""
    try:
        yield
    except FileNotFoundError:
        raise errors.NotFound("this object's bytes are gone", hint="Upload them again.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise errors.StorageFull(
                f"objects can't be written: {error.strerror}", hint="Free disk space where the objects are kept."
            ) from error
        raise errors.Unavailable(f"the objects' storage can't be used now: {error}", hint="Try again.") from error


class Upload:
    """One object on its way in: written, then finished or dropped. Blocks; used by one thread at a time."""

    def __init__(self, fs: Any, path: str, name: str) -> None:
        self.name = name
        self.size = 0
        self._fs = fs
        self._path = path
        self._hash = hashlib.sha256()
        self._file: Any = None

    def open(self) -> None:
        """Begin; raises StorageFull where nothing can be written."""
        with _disk():
            self._fs.makedirs(self._path.rpartition("/")[0], exist_ok=True)
            self._file = self._fs.open(self._path, "wb")

    def write(self, data: bytes) -> None:
        with _disk():
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self, digest: str) -> None:
        """Make it durable.

        :raises DigestMismatch: what was written is not what *digest* names.
        """
        found = self._hash.hexdigest()
        if found != digest:
            raise errors.DigestMismatch(
                f"the body's SHA-256 is {found}, not {digest}", hint="Name the object by the SHA-256 of its bytes."
            )
        with _disk():
            if isinstance(self._fs, LocalFileSystem):
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()

    def drop(self) -> None:
        """Leave nothing of it."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._fs.rm_file(self._path)


class ObjectFiles:
    """The place of all objects.

    :param url: a directory's path or any fsspec URL (``s3://bucket/prefix``).
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def upload(self, now: float) -> Upload:
        """Name a new file; nothing is written yet."""
        name = f"{int(now):010x}-{secrets.token_hex(12)}"
        return Upload(self._fs, self._path(name), name)

    def open(self, name: str) -> Any:
        """Open a file to read.

        :raises NotFound: it is gone.
        """
        with _disk():
            return self._fs.open(self._path(name), "rb")

    def read(self, file: Any, size: int) -> bytes:
        with _disk():
            data: bytes = file.read(size)
        return data

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def older_than(self, time: float) -> list[str]:
        """Return the names of all files that were begun before *time*, whether an object has them or not."""
        with contextlib.suppress(FileNotFoundError):
            names = [path.rpartition("/")[2] for path in self._fs.ls(self._root, detail=False, refresh=True)]
            return [name for name in names if name[:10] < f"{int(time):010x}"]
        return []

    def sizes(self) -> dict[str, int]:
        """Return the names and sizes of all files."""
        with contextlib.suppress(FileNotFoundError):
            found = self._fs.ls(self._root, detail=True, refresh=True)
            return {entry["name"].rpartition("/")[2]: int(entry["size"]) for entry in found}
        return {}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
