"""What Ctrl-C (the stop button) does while a cell waits for its job.

The handler only notes the press: it never raises in the middle of a message's framing. The loop that replays the
output then acts on it, and the cell always ends with KeyboardInterrupt, so that Run All stops.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

OnInterrupt = Literal["cancel", "detach"]
Step = Literal["interrupt", "cancel", "leave", "detach"]


@contextmanager
def catching(pressed: Callable[[], None]) -> Iterator[None]:
    """Call *pressed* for each SIGINT; only the main thread can, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda _signal, _frame: pressed())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def raising() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt again inside of `catching`, while a person is asked for something."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def next_step(presses: int, *, on_interrupt: OnInterrupt, running: bool) -> Step:
    """Decide what a press does: interrupt the code, then cancel the job, then stop waiting for it.

    :param presses: which press it is, from 1.
    :param running: the job's code may be running; a job that still waits has no code to interrupt and is cancelled.
    """
    if on_interrupt == "detach":
        return "detach"
    if presses == 1 and running:
        return "interrupt"
    if presses <= (2 if running else 1):
        return "cancel"
    return "leave"
