"""The end of the process within a bounded time, whatever may hold it: a disk or a database that hangs, a bug of ours.

Nothing that was acknowledged is lost by it, since that is committed. What held the process stands in the log; without
this it would keep its port and its lock, and whoever waits for its end would have to kill it, knowing nothing.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
import threading
import traceback

log = logging.getLogger(__name__)

#: exit code of a service that could not be closed in time
CLOSED_BY_FORCE = 4


def end_within(seconds: float) -> None:
    """End this process by force if it is still there after *seconds*. Called on its event loop."""
    loop = asyncio.get_running_loop()
    timer = threading.Timer(seconds, _end, (loop, seconds))
    timer.daemon = True
    timer.start()


def _end(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    log.error("ended by force: the service could not be closed in %g s. It was busy with:\n%s", seconds, _busy(loop))
    logging.shutdown()
    os._exit(CLOSED_BY_FORCE)


def _busy(loop: asyncio.AbstractEventLoop) -> str:
    """Say what each task and each thread waits for."""
    text = io.StringIO()
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=text)
    for thread in threading.enumerate():
        frame = sys._current_frames().get(thread.ident or 0)
        text.write(f"Thread {thread.name}:\n{''.join(traceback.format_stack(frame))}")
    return text.getvalue()
