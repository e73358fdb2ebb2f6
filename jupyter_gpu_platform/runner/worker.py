"""The process that becomes the user's program, or runs the user's cell.

It is started before the claim is granted, loads what takes long, says ``ready`` and waits. It runs nothing of the
user's until its supervisor says so, and ends at once when the supervisor is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
from typing import Any

from . import framing, processes


def _die_with_parent(parent: int) -> None:
    """Tie this process to its supervisor. The kernel ties it to the *thread* that forked; that is its main one."""
    processes.prctl(processes.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the tie was made


def _receive(control: int) -> Any:
    """Wait for the word to run; None when the supervisor went away, or took it back, instead."""
    with os.fdopen(control, "rb") as file:
        line = file.readline()
    return json.loads(line.decode()) if line.endswith(b"\n") else None


def _run_program(control: int, writer: framing.Writer) -> int:
    writer.send(type="ready")
    given = _receive(control)
    if given is None:
        return 1
    # Python ignores these, and an ignored signal stays ignored in the program that replaces it.
    for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    writer.send(type="started")
    argv = given["argv"]
    try:
        os.execvp(argv[0], argv)
    except (OSError, ValueError) as error:
        writer.send(type="start_failed", message="can't run %s: %s" % (argv[0], error))
        return 127


def _run_cell(control: int, writer: framing.Writer) -> int:
    shell = importlib.import_module(__package__ + ".shell").make(writer)
    writer.send(type="ready")
    given = _receive(control)
    if given is None:
        return 1
    source = given["source"]
    outcome = shell.run(
        source["code"], int(source.get("execution_count") or 1), started=lambda: writer.send(type="started")
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    writer.send(type="done", **outcome)
    return 0 if outcome["status"] == "ok" else 1


def main(argv: list[str]) -> int:
    kind, control, frames, parent = argv[0], int(argv[1]), int(argv[2]), int(argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _die_with_parent(parent)
    os.set_inheritable(control, False)
    os.set_inheritable(frames, False)
    run = _run_cell if kind == "cell" else _run_program
    return run(control, framing.Writer(frames))
