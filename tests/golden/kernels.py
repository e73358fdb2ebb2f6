"""Real kernels in pairs: one runs cells as they are, the other runs them under ``%%gpu_run``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from .transcripts import Transcript

#: seconds that a kernel may be silent before a test gives up on it
PATIENCE = 60.0

#: Run unseen between two cells: the next one finds the names of a fresh kernel, here as in a job, and no earlier
#: cell's warnings, traceback and figures.
FORGET = """
for _name in [name for name in globals() if not name.startswith('_') and name not in _fresh]:
    del globals()[_name]
import sys as _sys
get_ipython()._last_traceback = None
if 'matplotlib.pyplot' in _sys.modules:
    _plt = _sys.modules['matplotlib.pyplot']
    _plt.close('all')
    _plt.draw_if_interactive.called = False
for _module in list(_sys.modules.values()):
    getattr(_module, '__warningregistry__', {}).clear()
"""
REMEMBER = "_fresh = {*globals(), 'In', 'Out', 'get_ipython', 'exit', 'quit', 'open'}"


class Kernel:
    """A real kernel in a process and a directory of its own."""

    def __init__(self, env: dict[str, str], directory: Path) -> None:
        self.directory = directory
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=env, cwd=str(directory))
        self._client: BlockingKernelClient = self.manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE)
        assert self.run("%load_ext jupyter_gpu_platform").reply["status"] == "ok"
        self.silent(REMEMBER)

    def start(self, code: str, *, silent: bool = False, allow_stdin: bool = False) -> str:
        return str(self._client.execute(code, silent=silent, allow_stdin=allow_stdin))

    def message(self, msg_id: str) -> dict[str, Any]:
        """The next iopub message of the cell *msg_id*."""
        while True:
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == msg_id:
                return message

    def finish(self, msg_id: str) -> Transcript:
        messages = []
        while True:
            message = self.message(msg_id)
            messages.append(_kept(message))
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while (reply := self._client.get_shell_msg(timeout=PATIENCE))["parent_header"].get("msg_id") != msg_id:
            pass
        own = {
            msg_id: "<request>",
            msg_id.partition("_")[0]: "<session>",
            str(self.directory): "<directory>",
            f"ipykernel_{self.manager.provisioner.pid}": "ipykernel_<pid>",  # type: ignore[union-attr]
        }
        return Transcript(messages, reply["content"], own)

    def run(self, code: str) -> Transcript:
        return self.finish(self.start(code))

    def silent(self, code: str) -> None:
        """Run *code* so that no cell number is used."""
        reply = self.finish(self.start(code, silent=True)).reply
        assert reply["status"] == "ok", reply

    def forget(self) -> None:
        self.silent(FORGET)

    def until_text(self, msg_id: str, text: str) -> str:
        """Wait until the cell *msg_id* has shown *text*; return all that it has shown."""
        seen = ""
        while text not in seen:
            message = self.message(msg_id)
            seen += str(message["content"].get("text", ""))
        return seen

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        self.manager.restart_kernel(now=True)
        self._client.wait_for_ready(timeout=PATIENCE)
        assert self.run("%load_ext jupyter_gpu_platform").reply["status"] == "ok"

    def close(self) -> None:
        self._client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self.manager.context.destroy()


def _kept(message: dict[str, Any]) -> dict[str, Any]:
    """What a front end acts on: all but the header, which holds ids and dates."""
    buffers = [bytes(buffer) for buffer in message["buffers"]]
    return {
        "type": message["msg_type"],
        "content": message["content"],
        "metadata": message["metadata"],
        "buffers": [{"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for data in buffers],
    }


@contextmanager
def kernel(env: dict[str, str], directory: Path) -> Iterator[Kernel]:
    directory.mkdir(exist_ok=True)
    running = Kernel(env, directory)
    try:
        yield running
    finally:
        running.close()


def environment(home: Path) -> dict[str, str]:
    """An environment whose local platform is one of its own, below *home*."""
    # ipykernel leaves its descriptors alone where it takes itself for a part of a test.
    unwanted = ("JUPYTER_GPU_", "PYTEST_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    places = {
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTER_GPU_STATE_DIR": "state",
        "IPYTHONDIR": "ipython",
        "MPLCONFIGDIR": "matplotlib",
        "JUPYTER_CONFIG_DIR": "config",
    }
    return env | {name: str(home / place) for name, place in places.items()}
