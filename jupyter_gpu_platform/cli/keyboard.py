"""Lines typed at the terminal. A thread reads them, so that a question can be dropped when it needs no answer any more.

The thread reads the terminal itself, not `sys.stdin`: a thread that waits in there would hold its lock at exit.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import threading
from collections.abc import Callable

LONGEST_LINE = 64 * 1024


class Keyboard:
    """Asks one question at a time; a new one takes the place of the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._then: Callable[[str], None] | None = None
        self._reads = False

    @property
    def there(self) -> bool:
        """Whether somebody sits at a terminal."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def ask(self, prompt: str, then: Callable[[str], None], *, hidden: bool = False) -> None:
        """Show *prompt* and call *then* with the line that is typed, from another thread.

        :param hidden: what is typed doesn't show.
        """
        _echo(on=not hidden)
        with self._lock:
            self._then = then
            if not self._reads:
                self._reads = True
                threading.Thread(target=self._read, name="gpu-keyboard", daemon=True).start()
        # Last: whoever reads it may answer at once.
        sys.stderr.write(prompt)
        sys.stderr.flush()

    def drop(self) -> None:
        """Wait for no answer any more."""
        with self._lock:
            asked, self._then = self._then is not None, None
        if asked:
            _echo(on=True)

    def _read(self) -> None:
        while True:
            try:
                line = os.read(sys.stdin.fileno(), LONGEST_LINE)
            except OSError:  # the terminal is gone
                line = b""
            with self._lock:
                then, self._then = self._then, None
                if then is None:
                    self._reads = False
                    return
            if not _echo(on=True):
                print(file=sys.stderr)  # the line's end was not shown either
            then(line.decode(errors="replace").removesuffix("\n"))


def _echo(*, on: bool) -> bool:
    """Let the terminal show what is typed, or not; return whether it did before."""
    before = True
    with contextlib.suppress(termios.error):  # the terminal is gone
        settings = termios.tcgetattr(sys.stdin.fileno())
        before = bool(settings[3] & termios.ECHO)
        settings[3] = settings[3] | termios.ECHO if on else settings[3] & ~termios.ECHO
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)
    return before
