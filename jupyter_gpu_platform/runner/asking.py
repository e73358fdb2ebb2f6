"""The pipe down to the worker: the word to run, and the answers to ``input()``.

Its worker's end is `Asking`, its supervisor's end is `Control`. Lines of JSON, one message each.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from . import framing

#: characters of a prompt that are passed on
LONGEST_PROMPT = 10_000
#: what front ends send for Ctrl-D
END_OF_FILE = "\x04"


class Control:
    """The supervisor's end; never blocks it, and heeds no worker that is gone.

    :param fd: the pipe's end for writing; -1: there is no worker.
    """

    def __init__(self, fd: int = -1) -> None:
        if fd >= 0:
            os.set_blocking(fd, False)
        self._fd = fd
        #: what the pipe had no room for yet
        self.pending = b""
        #: the question that waits; 0: none
        self.asked = 0
        self._answers: dict[int, str] = {}

    def send(self, message: Any) -> None:
        if self._fd >= 0:
            self.pending += json.dumps(message).encode() + b"\n"
            self.flush()

    def flush(self) -> None:
        """Write as much as fits."""
        try:
            while self.pending:
                self.pending = self.pending[os.write(self._fd, self.pending) :]
        except BlockingIOError:
            pass  # the worker reads on, or never will
        except BrokenPipeError:
            self.close()  # it is dead, or has become a program that asks nothing

    def close(self) -> None:
        self.pending = b""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def ask(self, request: int) -> None:
        """Note that the worker waits for the answer to *request*; 0: for none any more."""
        self.asked = request
        self.answer(())

    def answer(self, answers: Any) -> None:
        """Take ``[{"request", "value"}, …]``, and pass on what the worker waits for. Repeats are harmless."""
        for answer in answers:
            self._answers.setdefault(int(answer["request"]), str(answer["value"]))
        value = self._answers.pop(self.asked, None)
        if self.asked and value is not None:
            self.send({"request": self.asked, "value": value})


class Asking:
    """The worker's end.

    :param fd: the pipe's end for reading.
    """

    def __init__(self, fd: int, writer: framing.Writer) -> None:
        os.set_inheritable(fd, False)
        self._file = os.fdopen(fd, "rb")
        self._writer = writer
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None
        self._number = 0
        self._answers: dict[int, str] = {}
        self._closed = False

    def receive(self) -> Any:
        """Wait for the word to run; None when the supervisor went away, or took it back, instead."""
        line = self._file.readline()
        return json.loads(line.decode()) if line.endswith(b"\n") else None

    def ask(self, prompt: Any, password: bool) -> str:
        """Ask whoever watches the job, and wait for the answer.

        :raises EOFError: the answer was the end of input, or this is a fork of the worker, which nobody hears.
        :raises KeyboardInterrupt: the job was interrupted meanwhile.
        """
        if not self._writer.ours:
            raise EOFError("a child process can't ask for input")
        with self._turn:
            self._number += 1
            number = self._number
            if self._reader is None:
                # In a thread, so that an interrupt can't come between a read and what is done with it.
                self._reader = threading.Thread(target=self._read, name="input", daemon=True)
                self._reader.start()
            try:
                self._writer.send(type="input", request=number, prompt=str(prompt)[:LONGEST_PROMPT], password=password)
                value = self._wait(number)
            finally:  # after an interrupt too: nobody is to be asked any longer
                self._writer.send(type="input_reply", request=number)
        if value == END_OF_FILE:
            raise EOFError
        return value

    def _read(self) -> None:
        while True:
            answer = self.receive()
            with self._changed:
                if answer is None:
                    self._closed = True
                else:
                    self._answers[answer["request"]] = answer["value"]
                self._changed.notify_all()
            if answer is None:
                return

    def _wait(self, number: int) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number in self._answers)
            return self._answers.pop(number, END_OF_FILE)
