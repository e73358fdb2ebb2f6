"""Questions of a job's code: `input()` and `getpass()` are asked where the cell waits.

The question is put from the thread that runs the cell, as the shell's own would be; meanwhile the job's output queues
up. Should the question be settled elsewhere (the job ends, somebody else answers), the reader's thread withdraws it.
"""

from __future__ import annotations

import getpass
import os
import signal
import sys
import threading
from typing import Any

from ..model.jobs import Frontend
from .interrupting import raising

#: what ends the input: Ctrl-D, as kernels pass it on
EOF = "\x04"


class Withdrawn(Exception):
    """The question needs no answer any more."""


class NobodyThere(Exception):
    """This front end can't ask a person."""


def frontend(shell: Any, *, waits: bool) -> Frontend:
    """Say what the far shell needs to stand in for this one.

    :param waits: the cell waits for its job, so that questions can be asked under it.
    """
    if getattr(shell, "kernel", None) is None:
        return Frontend(stdin=waits and can_ask(shell))
    header = (shell.get_parent() or {}).get("header") or {}
    known = {name: str(header[name]) for name in ("msg_id", "session", "username") if name in header}
    return Frontend(parent_header=known, kernel_pid=os.getpid(), stdin=waits and can_ask(shell))


def can_ask(shell: Any) -> bool:
    """Say whether a person can be asked here."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return sys.stdin is not None and sys.stdin.isatty()
    # What ipykernel itself goes by in `raw_input`; it has no public name.
    return bool(getattr(kernel, "_allow_stdin", False))


class Question:
    """One question at a time, asked by one thread and perhaps withdrawn by another."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._lock = threading.Lock()
        self._asker: int | None = None
        self._withdrawn = False

    def ask(self, prompt: str, *, password: bool) -> str:
        """Ask, and return the answer; Ctrl-D is `EOF`.

        :raises KeyboardInterrupt: the person pressed Ctrl-C, or the stop button, instead.
        :raises Withdrawn: it was settled elsewhere.
        :raises NobodyThere: nobody can be asked.
        """
        if not can_ask(self._shell):
            raise NobodyThere
        main = threading.main_thread().ident
        with self._lock:
            # Only the main thread looks up for a signal: a question of another one stays until it is answered.
            self._asker, self._withdrawn = main if threading.get_ident() == main else None, False
        try:
            with raising():
                try:
                    return self._put(prompt, password)
                except EOFError:
                    return EOF
                finally:
                    with self._lock:
                        self._asker = None
        except KeyboardInterrupt:
            if self._withdrawn:
                raise Withdrawn from None
            raise
        finally:
            self._asker = None

    def _put(self, prompt: str, password: bool) -> str:
        kernel = getattr(self._shell, "kernel", None)
        if kernel is not None:
            answer: str = kernel.getpass(prompt) if password else kernel.raw_input(prompt)
            return answer
        return getpass.getpass(prompt) if password else input(prompt)

    def withdraw(self) -> None:
        """Take back the question that is being asked, if one is; called by another thread."""
        with self._lock:
            if self._asker is None or self._withdrawn:
                return
            self._withdrawn = True
            # What waits for the person looks up for a signal only.
            signal.pthread_kill(self._asker, signal.SIGINT)
