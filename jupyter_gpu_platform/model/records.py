"""The output log's records, and the cursor by which readers follow it.

A record is one JSON object on one line. It is numbered where it is born, by the runner, and never re-encoded on
its way: agent and control service move whole lines. Fields of every record: ``seq`` (from 1, without holes, per
(job, attempt, replica, execution)), ``time`` (seconds since the epoch), ``type``. By type:

=============== ====================================================================================
stream          ``name`` ("stdout" | "stderr"), ``text``
display         ``data``, ``metadata``, ``transient``, ``update`` (bool)
clear           ``wait`` (bool)
result          ``data``, ``metadata``, ``execution_count``
error           ``ename``, ``evalue``, ``traceback`` (list of lines)
comm            ``msg_type`` ("comm_open" | "comm_msg" | "comm_close"), ``content``, ``metadata``, ``buffers`` (base64)
payload         ``payload``: what goes with the cell's reply, for its front end: a page of help (``source`` "page"), the
                next cell's text ("set_next_input")
input           ``request`` (from 1, per attempt), ``prompt``, ``password`` (bool): the code waits for an answer
input_reply     ``request``: it was answered; the answer itself is in no log
values          what was kept of the job's values: ``object`` ({digest, size} or null), ``encoding`` ("pickle" |
                "json"), ``entries`` (list of {name, kind, type, summary, size}; kind is "out" | "result" |
                "exception"), ``failed`` (list of {name, kind, code, message}; code is "not_assigned" | "deleted" |
                "not_picklable" | "too_large" | "not_kept"). A cell's result is named ``_``, a function's ``result``
gap             ``message``, ``code``: output is missing here and why ("output_limit", "supervisor_killed", …)
exit            ``exit_code``, ``signal``, ``reason`` ({code, message} or null): always the last one of an attempt
=============== ====================================================================================

Records that show text, of a job in a container, also have ``mirrored``: how many bytes of text its own log had then.
Readers get, added to each: ``cursor``, ``attempt``, ``replica``.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import errors


class StreamKey(NamedTuple):
    """Names one numbered sequence of records."""

    job: str
    attempt: int
    replica: int = 0
    execution: int = 0


def encode_cursor(position: int) -> str:
    """Give readers a cursor for *position*: the count of records of the job's log that were read."""
    return f"c{position:x}"


def decode_cursor(cursor: str) -> int:
    """Read a cursor back; the empty one stands for the beginning.

    :raises InvalidCursor: it was not made by :func:`encode_cursor`.
    """
    if not cursor:
        return 0
    try:
        if cursor[0] != "c" or cursor[1:2] == "-" or len(cursor) > 17 or cursor[1:] != f"{int(cursor[1:], 16):x}":
            raise ValueError
        return int(cursor[1:], 16)
    except ValueError:
        raise errors.InvalidCursor(
            f"{cursor[:40]!r} is not a cursor of this log",
            hint="Pass a cursor exactly as an earlier answer gave it, or none to read from the beginning.",
        ) from None
