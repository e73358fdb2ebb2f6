"""The last records of an attempt whose runner can't write them any more: what it still said, and how it ended.

A runner mirrors plain text to its container's log before it sends it. What the log holds beyond the last record that
came here is what was lost with the runner.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import NamedTuple

from jupyter_gpu_platform.errors import ClaimLost, Unavailable
from jupyter_gpu_platform.model.jobs import Reason
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.runner import mirror

from ..executors import AgentCore, AttemptKey, OutOfSequence

#: seconds between tries of what the service refused for now
AGAIN = 1.0
#: greater than the number of any record: asks where the stream goes on
BEYOND = 2**50
ANY = 2**62
#: bytes before the place where text goes on, by which that place is known for sure
PROOF = 256
#: characters of text in one record
LONGEST = 2**20


class Seen(NamedTuple):
    """How far a container's text has come in."""

    #: bytes of it, from its beginning
    mirrored: int = 0
    #: the last of them
    tail: bytes = b""


NOTHING_SEEN = Seen()


def seen(lines: bytes, before: Seen = NOTHING_SEEN) -> Seen:
    """Read from records how far the text has come in."""
    at = lines.rfind(b'"mirrored":')
    if at < 0:
        return before
    begin, end = lines.rfind(b"\n", 0, at) + 1, lines.find(b"\n", at)
    record = json.loads(lines[begin:end])
    return Seen(record["mirrored"], mirror.plain(record).encode("utf-8", "replace")[-PROOF:])


def unseen(log: bytes, known: Seen) -> bytes | None:
    """Return what a container's log holds beyond what came in; None where the place can't be proven.

    :param log: of which the kubelet may have rotated the beginning away.
    """
    if log[: known.mirrored].endswith(known.tail) and len(log) >= known.mirrored:
        return log[known.mirrored :]
    at = log.rfind(known.tail) if len(known.tail) == PROOF else -1
    return None if at < 0 else log[at + PROOF :]


async def tell_end(core: AgentCore, key: AttemptKey, incarnation: str, reason: Reason, text: bytes | None) -> None:
    """Append the text that did not come in, a gap and the exit record; returns once all of them are committed.

    Nothing is appended for an incarnation that never claimed the attempt.

    :param text: None where nobody knows what it was.
    """
    stream = StreamKey(*key)
    while not core.fenced(key):
        first = core.expected(stream) or await _position(core, stream, incarnation)
        if first is None:
            return
        lines = _records(first, reason, text)
        try:
            await core.append(stream, incarnation, first, len(lines), b"".join(lines))
        except OutOfSequence:
            continue
        except ClaimLost:
            return
        except Unavailable:
            await asyncio.sleep(AGAIN)
            continue
        while core.durable(stream) < first + len(lines) and not core.fenced(key):
            await core.wait_wanted(stream, ANY, core.durable(stream), ANY, 20.0)
        return


async def _position(core: AgentCore, stream: StreamKey, incarnation: str) -> int | None:
    """Ask the service where the stream goes on, by a record that can't be next; None: it isn't ours to write."""
    key = AttemptKey(stream.job, stream.attempt)
    while not core.fenced(key):
        try:
            await core.append(stream, incarnation, BEYOND, 1, b"{}\n")
        except ClaimLost:
            return None
        except OutOfSequence as error:
            return error.expected
        except Unavailable:
            await asyncio.sleep(AGAIN)
            continue
        expected = core.expected(stream)
        while expected is not None and expected > BEYOND and not core.fenced(key):
            await core.wait_wanted(stream, ANY, ANY, ANY, 0.2)
            expected = core.expected(stream)
        if expected is not None and expected <= BEYOND:
            return expected
    return None


def _records(first: int, reason: Reason, text: bytes | None) -> list[bytes]:
    now, why = round(time.time(), 6), {"code": reason.code, "message": reason.message}
    said = (text or b"").decode("utf-8", "replace")
    records: list[dict[str, object]] = [
        {"type": "stream", "name": "stdout", "text": said[start : start + LONGEST]}
        for start in range(0, len(said), LONGEST)
    ]
    if text is None:
        records.append({"type": "gap", **why})
    records.append({"type": "exit", "exit_code": None, "signal": None, "reason": why})
    return [
        json.dumps({"seq": first + number, "time": now, **record}, separators=(",", ":")).encode() + b"\n"
        for number, record in enumerate(records)
    ]
