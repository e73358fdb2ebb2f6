"""What a container's log still tells of a job whose runner was killed with it."""

from __future__ import annotations

import json

import pytest
from jupyter_gpu_agent.kubernetes.ending import PROOF, Seen, seen, unseen

from jupyter_gpu_platform.runner.mirror import plain


def line(text: str, mirrored: int) -> bytes:
    return json.dumps({"type": "stream", "name": "stdout", "text": text, "mirrored": mirrored}).encode() + b"\n"


def test_the_last_record_with_text_says_how_far_it_came() -> None:
    lines = line("one\n", 4) + line("two\n", 8) + b'{"type":"clear","wait":false}\n'
    assert seen(lines) == Seen(8, b"two\n")
    assert seen(b'{"type":"clear","wait":false}\n', Seen(3, b"abc")) == Seen(3, b"abc")


def test_what_the_log_has_beyond_that_is_the_rest() -> None:
    assert unseen(b"one\ntwo\nthr", Seen(8, b"two\n")) == b"thr"
    assert unseen(b"one\ntwo\n", Seen(8, b"two\n")) == b""
    assert unseen(b"never sent", Seen()) == b"never sent"


def test_a_rotated_log_goes_on_only_where_that_is_certain() -> None:
    tail = b"x" * (PROOF - 4) + b"end\n"
    assert unseen(tail + b"more", Seen(50_000_000, tail)) == b"more"
    assert unseen(b"something else", Seen(50_000_000, tail)) is None
    # Bytes that are few may occur anywhere.
    assert unseen(b"short\nmore", Seen(50_000_000, b"short\n")) is None
    # As long as what is known, but not its text: the log begins later.
    assert unseen(b"z" * 100, Seen(8, b"two\n")) is None


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"type": "stream", "name": "stderr", "text": "oh"}, "oh"),
        ({"type": "error", "ename": "E", "evalue": "v", "traceback": ["a", "b"]}, "a\nb\n"),
        ({"type": "result", "data": {"text/plain": "2"}}, "2\n"),
        ({"type": "display", "data": {"image/png": "…"}}, ""),
        ({"type": "clear", "wait": False}, ""),
    ],
)
def test_records_as_text(record: dict[str, object], text: str) -> None:
    assert plain(record) == text
