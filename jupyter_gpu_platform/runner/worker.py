"""The process that becomes the user's program, or runs the user's cell or function.

It is started before the claim is granted, loads what takes long, says ``ready`` and waits. It runs nothing of the
user's until its supervisor says so, and ends at once when the supervisor is gone.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

from . import framing, processes
from .asking import Asking


def _die_with_parent(parent: int) -> None:
    """Tie this process to its supervisor. The kernel ties it to the *thread* that forked; that is its main one."""
    processes.prctl(processes.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the tie was made


def _run_program(asking: Asking, writer: framing.Writer) -> int:
    writer.send(type="ready")
    given = asking.receive()
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
        writer.send(type="start_failed", code="start_failed", message="can't run %s: %s" % (argv[0], error))
        return 127


def _run_in_shell(asking: Asking, writer: framing.Writer) -> int:
    from . import exchange
    from . import shell as shells

    gc.disable()
    shell = shells.make(writer, asking)
    gc.freeze()  # what a shell consists of stays to the end, which comes much sooner if it isn't looked through
    gc.enable()
    writer.send(type="ready")
    given = asking.receive()
    if given is None:
        return 1
    source, objects = given["source"], given["objects"]

    def started() -> None:
        writer.send(type="started")

    try:
        if source["type"] == "function":
            known: set[str] = set()
            function = exchange.load(objects[source["function"]["digest"]], shell)["function"]
            args, kwargs = exchange.load(objects[source["arguments"]["digest"]], shell)[str(source["index"])]
            outcome = shell.call(function, args, kwargs, started)
        else:
            if source.get("values"):
                exchange.load(objects[source["values"]["digest"]], shell)
            known = set(shell.namespace)
            frontend = source.get("frontend") or {}
            outcome = shell.run(source["code"], int(source.get("execution_count") or 1), frontend, started)
    except exchange.Unstartable as error:
        writer.send(type="start_failed", code=error.code, message=str(error))
        return 1
    kept = exchange.keep(source, shell, known, given["results"])
    if kept is not None:
        writer.send(type="values", **kept)
    writer.send(type="done", **outcome)
    return 0 if outcome["status"] == "ok" else 1


def main(argv: list[Any]) -> int:
    kind, control, frames, parent = argv[0], int(argv[1]), int(argv[2]), int(argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _die_with_parent(parent)
    os.set_inheritable(frames, False)
    writer = framing.Writer(frames)
    asking = Asking(control, writer)
    if kind == "standby":
        from .becoming import become

        try:
            kind = become(asking, argv[1:])
        except OSError as error:
            writer.send(type="start_failed", code="start_failed", message="can't begin in its directory: %s" % error)
            return 1
    if kind is None:
        return 1
    run = _run_in_shell if kind in ("cell", "function") else _run_program
    return run(asking, writer)
