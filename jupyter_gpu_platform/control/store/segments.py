"""Sealed output: an ended job's chunks as one file at any fsspec URL, and its index beside the job's row."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import fsspec
import msgspec
from fsspec.implementations.local import LocalFileSystem

from ... import errors
from .output_log import Chunk, joined_chunk, packed, unpacked


class Block(NamedTuple):
    """Where one chunk lies in its segment."""

    last: int
    records: int
    attempt: int
    replica: int
    #: bytes before compression
    size: int
    offset: int
    #: bytes in the file
    stored: int


_index = msgspec.msgpack.Decoder(list[Block]).decode


def encode_index(blocks: list[Block]) -> bytes:
    return msgspec.msgpack.encode(blocks)


def decode_index(index: bytes) -> list[Block]:
    return _index(index)


class Segments:
    """The place of all segments.

    :param url: a directory's path or any fsspec URL (``s3://bucket/prefix``).
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def write(self, name: str, chunks: Iterable[Chunk]) -> list[Block]:
        """Write a segment, small neighbours joined, and return its index; it is durable on return."""
        blocks: list[Block] = []
        self._fs.makedirs(self._root, exist_ok=True)
        with self._fs.open(self._path(name), "wb") as file:
            for chunk in _merged(chunks):
                data = packed(chunk.lines)
                offset = blocks[-1].offset + blocks[-1].stored if blocks else 0
                place = (chunk.last, chunk.records, chunk.attempt, chunk.replica, chunk.size, offset, len(data))
                blocks.append(Block(*place))
                file.write(data)
            if isinstance(self._fs, LocalFileSystem):
                file.flush()
                os.fsync(file.fileno())
        if isinstance(self._fs, LocalFileSystem):
            _sync_directory(self._root)
        return blocks

    def read(self, name: str, blocks: list[Block]) -> list[Chunk]:
        """Read neighbouring blocks of one segment, with one request.

        :raises NotFound: the segment is gone: its job was deleted.
        """
        begin, end = blocks[0].offset, blocks[-1].offset + blocks[-1].stored
        try:
            data: bytes = self._fs.cat_file(self._path(name), start=begin, end=end)
        except FileNotFoundError:
            raise errors.NotFound("this job's output is gone") from None
        except OSError as error:
            raise errors.Unavailable(f"sealed output can't be read now: {error}", hint="Try again.") from error
        chunks = []
        for block in blocks:
            lines = unpacked(data[block.offset - begin : block.offset - begin + block.stored])
            chunks.append(Chunk(block.last, block.records, block.attempt, block.replica, lines))
        return chunks

    def delete(self, *names: str) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _merged(chunks: Iterable[Chunk]) -> Iterable[Chunk]:
    held: Chunk | None = None
    for chunk in chunks:
        joined = joined_chunk(held, chunk) if held is not None else chunk
        if joined is None and held is not None:
            yield held
        held = joined or chunk
    if held is not None:
        yield held


def _sync_directory(path: Any) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
