"""A cell run by ipykernel's own kernel object, without its sockets: what it would have sent becomes records.

Libraries look for a kernel, not only for IPython (tqdm.auto, matplotlib, plotly, rich, ipywidgets), and find one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import sys
import threading
from typing import Any, Callable

from . import framing

# debugpy's import writes a warning to fd 2, and nobody debugs here; so it is made unfindable meanwhile.
_debugpy = sys.modules.get("debugpy")
sys.modules["debugpy"] = None  # type: ignore[assignment]
try:
    import ipykernel.compiler
    import ipykernel.debugger
    import ipykernel.ipkernel
    import ipykernel.kernelapp
    import ipykernel.zmqshell  # tqdm.auto looks for it in sys.modules
    from jupyter_client.jsonutil import json_clean, json_default
    from jupyter_client.session import Session
    from traitlets.config import Config
finally:
    if _debugpy is None:
        del sys.modules["debugpy"]
    else:
        sys.modules["debugpy"] = _debugpy

_DISPLAYS = {"display_data": False, "update_display_data": True}


def _encode(fields: dict[str, Any]) -> bytes:
    """As jupyter_client packs messages: what JSON can't hold is cleaned, not refused."""
    try:
        text = json.dumps(fields, default=json_default, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(json_clean(fields), default=repr, allow_nan=False)
    return text.encode()


class RecordingSession(Session):
    """Makes records of the messages that a kernel publishes; drops the ones that are about a conversation."""

    writer: framing.Writer
    #: the cell is over: what objects still say as they are torn down is no part of it
    over = False

    def send(
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if isinstance(msg_or_type, dict):
            message = msg_or_type
            buffers = buffers or message.get("buffers")
        else:
            message = self.msg(msg_or_type, content=content, parent=parent, metadata=kwargs.get("metadata"))
        fields = self._record(message["header"]["msg_type"], message, buffers)
        if fields is not None and not self.over and self.writer.is_ours():
            self.writer.message(_encode(fields))
        return message

    def _record(self, kind: str, message: Any, buffers: Any) -> dict[str, Any] | None:
        content = message["content"]
        if kind in _DISPLAYS:
            fields = {key: content.get(key) or {} for key in ("data", "metadata", "transient")}
            return dict(fields, type="display", update=_DISPLAYS[kind])
        if kind == "execute_result":
            fields = {"data": content["data"], "metadata": content.get("metadata") or {}}
            return dict(fields, type="result", execution_count=content.get("execution_count"))
        if kind == "clear_output":
            return {"type": "clear", "wait": bool(content.get("wait"))}
        if kind == "error":
            return dict({key: content[key] for key in ("ename", "evalue", "traceback")}, type="error")
        if kind.startswith("comm_"):
            encoded = [base64.b64encode(memoryview(buffer)).decode() for buffer in buffers or ()]
            metadata = message.get("metadata") or {}
            return {"type": "comm", "msg_type": kind, "content": content, "metadata": metadata, "buffers": encoded}
        return None


class _Loop:
    """What a kernel wants of a Tornado loop. Its own `add_callback` would not wake the loop from a signal handler."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.asyncio_loop = loop

    def add_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.asyncio_loop.call_soon_threadsafe(lambda: callback(*args, **kwargs))

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.asyncio_loop.call_later(delay, lambda: callback(*args, **kwargs))

    def stop(self) -> None:
        """Nothing: `exit` in a cell ends with the cell."""


class _ShellThread:
    """Stands for the kernel's shell channel thread, by whose parent it knows which thread gets signals."""

    parent_thread = threading.main_thread()


class KernelShell:
    def __init__(self, writer: framing.Writer) -> None:
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        pid = os.environ.get("JGP_KERNEL_PID")
        if pid:  # cells are named after the kernel's process in warnings and tracebacks
            ipykernel.compiler.get_tmp_directory = lambda: os.path.join("/tmp", "ipykernel_" + pid)
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        # Libraries ask whether 'IPKernelApp' is in the configuration. A job's cells have no place in anybody's history.
        config = Config({"IPKernelApp": {"connection_file": ""}, "HistoryManager": {"enabled": False}})
        log = logging.getLogger("jupyter_gpu_runner.kernel")
        log.addHandler(logging.NullHandler())
        log.propagate = False
        self._session = RecordingSession()
        self._session.writer = writer
        self._writer = writer
        app = ipykernel.kernelapp.IPKernelApp.instance()
        self._kernel: Any = ipykernel.ipkernel.IPythonKernel.instance(
            parent=None, config=config, session=self._session, log=log, shell_channel_thread=_ShellThread()
        )
        self._kernel.io_loop = _Loop(self._loop)  # type: ignore[assignment]
        app.kernel = self._kernel  # `%matplotlib inline` asks for it

    def run(self, code: str, execution_count: int, started: Callable[[], None]) -> dict[str, Any]:
        shell = self._kernel.shell
        shell.execution_count = execution_count
        try:
            reply = self._loop.run_until_complete(self._execute(code, started))
        except KeyboardInterrupt:  # between the cell's last line and the end of its bookkeeping
            return {"status": "error", "ename": "KeyboardInterrupt", "evalue": ""}
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        for payload in reply.get("payload") or ():
            if payload.get("source") == "page":  # `print?`: there is no pager here
                self._show(payload["data"])
        self._session.over = True
        outcome = {"status": "ok" if reply["status"] == "ok" else "error"}
        if outcome["status"] == "error":
            outcome.update(ename=str(reply.get("ename")), evalue=str(reply.get("evalue")))
        return outcome

    async def _execute(self, code: str, started: Callable[[], None]) -> Any:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        parent = self._session.msg("execute_request", content=content)
        header = os.environ.get("JGP_PARENT_HEADER")
        if header:  # ipywidgets.Output captures by the msg_id that its front end knows
            parent["header"].update(json.loads(header))
            parent["msg_id"] = parent["header"]["msg_id"]
        self._kernel.set_parent([], parent)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        started()
        return await self._kernel.do_execute(code, silent=False, store_history=True, allow_stdin=False)

    def _show(self, data: bytes) -> None:
        fields = {"type": "display", "data": data, "metadata": {}, "transient": {}, "update": False}
        self._writer.message(_encode(fields))
