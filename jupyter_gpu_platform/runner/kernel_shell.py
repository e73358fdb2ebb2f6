"""A cell run by ipykernel's own kernel object, without its sockets: what it would have sent becomes records.

Libraries look for a kernel, not only for IPython (tqdm.auto, matplotlib, plotly, rich, ipywidgets), and find one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import inspect
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from typing import Any, Callable

from . import framing
from .asking import Asking
from .exchange import NOTHING
from .shell import without_our_frames

# debugpy's import writes a warning to fd 2, and nobody debugs here; so it is made unfindable meanwhile.
_debugpy = sys.modules.get("debugpy")
sys.modules["debugpy"] = None  # type: ignore[assignment]  # Python takes None for: not to be found
try:
    import ipykernel.compiler
    import ipykernel.debugger
    import ipykernel.ipkernel
    import ipykernel.kernelapp
    import ipykernel.zmqshell  # tqdm.auto looks for it in sys.modules
    from IPython.core.compilerop import CachingCompiler
    from jupyter_client.jsonutil import json_clean, json_default
    from jupyter_client.session import Session
    from traitlets.config import Config
finally:
    if _debugpy is None:
        del sys.modules["debugpy"]
    else:
        sys.modules["debugpy"] = _debugpy

#: What a front end can do for a job's cell; `exit` ends the job, not the notebook's kernel, and `%edit` names a file
#: here.
_PAYLOADS = ("page", "set_next_input")
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
        if fields is not None and not self.over and self.writer.ours:
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


class FarKernel(ipykernel.ipkernel.IPythonKernel):
    """A kernel whose questions go to whoever watches the job."""

    asking: Asking

    def _input_request(self, prompt: Any, ident: Any, parent: Any, password: bool = False) -> str:
        try:
            return self.asking.ask(prompt, password)
        except KeyboardInterrupt:  # as ipykernel does, so that the traceback ends here
            raise KeyboardInterrupt("Interrupted by user") from None


class KernelShell:
    def __init__(self, writer: framing.Writer, asking: Asking) -> None:
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
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
        shell_thread = _ShellThread()
        make: Any = FarKernel.instance
        self._kernel = make(
            parent=None, config=config, session=self._session, log=log, shell_channel_thread=shell_thread
        )
        self._kernel.asking = asking
        self._kernel.io_loop = _Loop(self._loop)
        app.kernel = self._kernel  # `%matplotlib inline` asks for it
        self._shell = self._kernel.shell
        # From IPython 9 on this keeps all text that a cell shows: nobody asks for it here, and it may be any amount.
        self._shell._tee = lambda **_channel: contextlib.nullcontext()
        self._shell._last_traceback = None  # ipykernel reads it after an exception group, which sets none
        self._shell.events.register("post_run_cell", self._note_result)
        self.namespace: dict[str, Any] = self._shell.user_ns
        self.result = NOTHING
        self.error: BaseException | None = None

    def _note_result(self, result: Any) -> None:
        # None in what another hook runs, and no value where a cell shows nothing.
        self.result = NOTHING if result is None or not result.success else result.result

    def transformed(self, code: str) -> str:
        try:
            return str(self._shell.transform_cell(code))
        except SyntaxError:
            return code

    def name_cells(self, numbers: dict[str, int]) -> None:
        """Let tracebacks call these files by their cells, as the notebook does."""
        self._shell.compile._filename_map.update(numbers)

    def run(
        self, code: str, execution_count: int, frontend: dict[str, Any], started: Callable[[], None]
    ) -> dict[str, Any]:
        self._shell.execution_count = execution_count
        pid = frontend.get("kernel_pid")
        if pid:  # cells are named after the kernel's process in warnings and tracebacks
            ipykernel.compiler.get_tmp_directory = lambda: os.path.join(tempfile.gettempdir(), "ipykernel_%d" % pid)
        else:  # as plain IPython names them: there is no kernel
            compiler = self._shell.compile
            compiler.get_code_name = functools.partial(CachingCompiler.get_code_name, compiler)
        try:
            reply = self._loop.run_until_complete(self._execute(code, frontend, started))
        except KeyboardInterrupt:  # between the cell's last line and the end of its bookkeeping
            return {"status": "error", "ename": "KeyboardInterrupt", "evalue": ""}
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        for payload in reply.get("payload") or ():
            if payload.get("source") in _PAYLOADS:
                self._writer.message(_encode({"type": "payload", "payload": payload}))
        self._session.over = True
        outcome = {"status": "ok" if reply["status"] == "ok" else "error"}
        if outcome["status"] == "error":
            outcome.update(ename=str(reply.get("ename")), evalue=str(reply.get("evalue")))
        return outcome

    def _begin(self, code: str, header: dict[str, Any], stdin: bool, started: Callable[[], None]) -> None:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": stdin}
        parent = self._session.msg("execute_request", content=content)
        parent["header"].update(header)  # ipywidgets.Output captures by the msg_id that its front end knows
        parent["msg_id"] = parent["header"]["msg_id"]
        self._kernel.set_parent([], parent)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        started()

    async def _execute(self, code: str, frontend: dict[str, Any], started: Callable[[], None]) -> Any:
        stdin = bool(frontend.get("stdin"))
        self._begin(code, frontend.get("parent_header") or {}, stdin, started)
        return await self._kernel.do_execute(code, silent=False, store_history=True, allow_stdin=stdin)

    def call(self, function: Any, args: Any, kwargs: Any, started: Callable[[], None]) -> dict[str, Any]:
        """Call a function where a cell would run.

        Outside of the running loop, other than a cell's code: functions may use `asyncio.run`, as in a program.
        """
        events = self._shell.events
        self._kernel._forward_input(allow_stdin=False)
        try:
            self._begin("", {}, False, started)
            events.trigger("pre_execute")
            value = function(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = self._loop.run_until_complete(self._await(value))
            self.result = value
        except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is what came of it
            self.error = error
            frames = without_our_frames(error.__traceback__)
            self._shell.showtraceback((type(error), error.with_traceback(frames), frames), tb_offset=0)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._kernel._restore_input()
        events.trigger("post_execute")  # shows the figures that are open
        self._session.over = True
        if self.error is None:
            return {"status": "ok"}
        return {"status": "error", "ename": type(self.error).__name__, "evalue": str(self.error)}

    async def _await(self, value: Any) -> Any:
        future = asyncio.ensure_future(value)
        with self._kernel._cancel_on_sigint(future):
            return await future
