"""What a worker says arrives whole and in order, wherever the supervisor's reads cut it."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jupyter_gpu_platform.runner import framing
from jupyter_gpu_platform.runner.framing import ERR_BYTES, ERR_TEXT, JSON, OUT_BYTES, OUT_TEXT, WHOLE

TEXTS = ("\n", "a line\n", "äöü€😀" * 3, "", "x" * WHOLE, "x" * (WHOLE + 1), "€😀ä" * 5000, "\x00\x7f")
BYTES = (b"\xff", b"\xff" * 5000, b"\xfe\xff\xffo", b"plain")


class Pipe:
    """A writer, and what has come out of the pipe, read in a thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.writer = framing.Writer(self._write)
        self.came = bytearray()
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self) -> None:
        while data := os.read(self._read, 2**20):
            self.came += data

    def close(self) -> bytes:
        if self._thread.is_alive():
            os.close(self._write)
            self._thread.join()
            os.close(self._read)
        return bytes(self.came)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.close()


def fed(data: bytes, chance: random.Random) -> list[tuple[bytes, Any]]:
    """Feed *data* in pieces of any length; neighbours of one kind are joined."""
    reader, found = framing.Reader(), []
    position = 0
    while position < len(data):
        size = chance.choice((1, 2, 7, 100, 5000, 2**20))
        found += reader.feed(data[position : position + size])
        position += size
    joined: list[tuple[bytes, Any]] = []
    for kind, payload in found:
        if kind != JSON and joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + payload)
        else:
            joined.append((kind, payload))
    return joined


@pytest.mark.parametrize("seed", range(20))
def test_everything_arrives_in_order_however_it_is_read(pipe: Pipe, seed: int) -> None:
    chance = random.Random(seed)
    expected: list[tuple[bytes, Any]] = []

    def said(kind: bytes, payload: Any) -> None:
        if kind != JSON and expected and expected[-1][0] == kind:
            expected[-1] = (kind, expected[-1][1] + payload)
        elif payload:
            expected.append((kind, payload))

    for _ in range(60):
        kind = chance.choice((OUT_TEXT, OUT_TEXT, ERR_TEXT, OUT_BYTES, ERR_BYTES, JSON))
        if kind == JSON:
            fields = {"type": "display", "data": chance.choice(TEXTS)}
            pipe.writer.send(**fields)
            said(kind, fields)
        elif kind in (OUT_BYTES, ERR_BYTES):
            data = chance.choice(BYTES)
            pipe.writer.data(kind, data)
            said(kind, data)
        else:
            data = chance.choice(TEXTS).encode()
            pipe.writer.text(kind, data)
            said(kind, data)
    assert fed(pipe.close(), chance) == expected


def test_threads_tear_neither_lines_nor_messages_nor_characters(pipe: Pipe) -> None:
    """Long text is written in pieces; what another thread writes may come between them, yet never in a character."""
    text, rounds = "€" * 3000, 60

    def write(out: bytes) -> None:
        for number in range(rounds):
            pipe.writer.text(out, text.encode())
            pipe.writer.text(OUT_TEXT, b"a short line\n")
            pipe.writer.send(type="display", number=number, data="y" * 10_000)

    threads = [threading.Thread(target=write, args=(kind,)) for kind in (OUT_TEXT, OUT_TEXT, ERR_TEXT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    came = framing.Reader().feed(pipe.close())
    out = "".join(payload.decode() for kind, payload in came if kind == OUT_TEXT)
    assert out.count("a short line\n") == 3 * rounds
    assert out.count("€") == 2 * rounds * len(text)
    assert "".join(payload.decode() for kind, payload in came if kind == ERR_TEXT) == text * rounds
    assert sorted(payload["number"] for kind, payload in came if kind == JSON) == sorted([*range(rounds)] * 3)


def test_json_that_readers_would_refuse_is_left_out(pipe: Pipe) -> None:
    pipe.writer.message(b"{")
    pipe.writer.message(b"[1]")
    pipe.writer.message(json.dumps({"ok": float("nan")}).encode())
    assert framing.Reader().feed(pipe.close()) == [(JSON, {"ok": None})]
