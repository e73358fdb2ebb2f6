"""The output log: its own lane, its own transactions (see `OutputLane`)."""

from __future__ import annotations

from ...model.records import StreamKey
from . import rows
from .database import Database


class OutputLane:
    def __init__(self, database: Database, segments_url: str) -> None:
        raise NotImplementedError

    async def open_stream(self, key: StreamKey, incarnation: str, cluster: str, max_bytes: int) -> int:
        raise NotImplementedError  # next_seq; ClaimLost

    async def append(self, key: StreamKey, incarnation: str, cluster: str, first: int, count: int, lines: bytes) -> int:
        raise NotImplementedError  # next_seq; ClaimLost

    async def stream_end(self, key: StreamKey) -> int:
        raise NotImplementedError  # next_seq; 1 where the stream is unknown

    async def read(
        self, job: str, after: int = 0, limit_records: int = 1000, limit_bytes: int = 1 << 20
    ) -> rows.OutputPage:
        raise NotImplementedError

    async def wait(self, job: str, after: int, timeout: float) -> bool:
        raise NotImplementedError

    async def seal(self, job: str) -> bool:
        raise NotImplementedError

    async def delete(self, job: str) -> None:
        raise NotImplementedError

    async def size(self, job: str) -> tuple[int, int]:
        raise NotImplementedError  # records, bytes

    async def close(self) -> None:
        raise NotImplementedError
