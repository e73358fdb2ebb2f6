"""What was committed here a moment ago, for who follows its job here: he need not read it back and unpack it.

It is a shortcut and never the truth. What is not here (committed by another replica, dropped for want of room, older)
is read from the database.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from .output_log import Chunk

#: bytes that may wait for followers, of all jobs together; with more, all of it is dropped
ROOM = 64 * 2**20
#: what is given at once ends with the chunk that reaches so many bytes or records
PAGE_BYTES = 2**20
PAGE_RECORDS = 1000


class Recent:
    """Chunks that followers have not taken yet. The writer's thread adds them, the event loop takes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: Counter[str] = Counter()
        #: of each job that somebody follows: chunks without a gap between them
        self._chunks: dict[str, list[Chunk]] = {}
        self._size = 0

    @contextlib.contextmanager
    def kept(self, job: str) -> Iterator[None]:
        """Keep the job's chunks for as long as this lasts."""
        with self._lock:
            self._followers[job] += 1
            self._chunks.setdefault(job, [])
        try:
            yield
        finally:
            with self._lock:
                self._followers[job] -= 1
                if not self._followers[job]:
                    self._drop(job, len(self._chunks[job]))
                    del self._chunks[job], self._followers[job]

    def add(self, job: str, chunks: Sequence[Chunk]) -> None:
        """Take note of what was committed, in the order of its commits."""
        with self._lock:
            known = self._chunks.get(job)
            if known is None:
                return
            if known and known[-1].last != chunks[0].first - 1:
                self._drop(job, len(known))
            known += chunks
            self._size += sum(chunk.size for chunk in chunks)
            if self._size > ROOM:
                self._drop_all()

    def take(self, job: str, after: int) -> list[Chunk]:
        """Return the chunks that go on from a position, if they are here; they are forgotten here, as all before it."""
        with self._lock:
            known = self._chunks.get(job, [])
            self._drop(job, sum(chunk.last <= after for chunk in known))
            if not known or known[0].first > after + 1:
                return []
            count = size = records = 0
            while count < len(known) and size < PAGE_BYTES and records < PAGE_RECORDS:
                size, records = size + known[count].size, records + known[count].records
                count += 1
            taken = known[:count]
            self._drop(job, count)
            return taken

    def forget(self, *jobs: str) -> None:
        with self._lock:
            for job in jobs:
                self._drop(job, len(self._chunks.get(job, ())))

    def _drop(self, job: str, count: int) -> None:
        if count:
            known = self._chunks[job]
            self._size -= sum(chunk.size for chunk in known[:count])
            del known[:count]

    def _drop_all(self) -> None:
        for known in self._chunks.values():
            known.clear()
        self._size = 0
