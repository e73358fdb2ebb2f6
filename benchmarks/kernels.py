"""A real Jupyter kernel, driven as a front end drives it, and how long its cells take."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from jupyter_client.manager import start_new_kernel


class Timing(NamedTuple):
    """One cell: seconds from the request to its first output and to idle, and the characters of its streams."""

    first: float
    idle: float
    printed: int


class Kernel:
    def __init__(self, client: object) -> None:
        self._client = client

    def run(self, code: str, timeout: float = 300) -> Timing:
        """Run a cell.

        :raises RuntimeError: it failed.
        """
        client = self._client
        began = time.perf_counter()
        request = client.execute(code)
        first, printed = 0.0, 0
        while True:
            message = client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind in ("stream", "display_data", "execute_result", "error"):
                first = first or time.perf_counter() - began
                printed += len(content.get("text", ""))
            if kind == "status" and content["execution_state"] == "idle":
                break
        idle = time.perf_counter() - began
        reply = client.get_shell_msg(timeout=timeout)["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply.get('ename')}: {reply.get('evalue')}")
        return Timing(first, idle, printed)


@contextlib.contextmanager
def kernel(*, magics: bool = True) -> Iterator[Kernel]:
    """Start a kernel with the magics loaded, which finds the platform through this process's environment.

    :param magics: without them it has nothing to do with the platform, nor counts as a part of it.
    """
    ours = () if magics else ("JUPYTER_GPU_STATE_DIR", "JUPYTER_RUNTIME_DIR")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    manager, client = start_new_kernel(kernel_name="python3", env=env)
    try:
        started = Kernel(client)
        if magics:
            started.run("%load_ext jupyter_gpu_platform")
        yield started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
