"""A cell run by plain Python, where the image has no ipykernel: no magics, but await, results and displays."""

from __future__ import annotations

import ast
import asyncio
import base64
import builtins
import getpass
import inspect
import json
import linecache
import signal
import sys
import traceback
import types
from typing import Any, Callable

from . import framing
from .asking import Asking
from .exchange import NOTHING
from .shell import without_our_frames

#: object methods that give one MIME type each
_METHODS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}


def bundle(value: Any) -> dict[str, Any]:
    """Return the MIME bundle of *value*: its text, and what its ``_repr_*_`` methods give."""
    data = {"text/plain": repr(value)}
    if isinstance(value, type):
        return data
    for method, mime in _METHODS.items():
        function = getattr(value, method, None)
        shown = function() if callable(function) else None
        if isinstance(shown, tuple):
            shown = shown[0]
        if isinstance(shown, bytes):
            shown = base64.b64encode(shown).decode()
        if shown is not None:
            data[mime] = shown
    function = getattr(value, "_repr_mimebundle_", None)
    if callable(function):
        shown = function(include=None, exclude=None)
        data.update((shown[0] if isinstance(shown, tuple) else shown) or {})
    return data


class StdinNotImplementedError(NotImplementedError):
    """Named as a kernel's."""


class PlainShell:
    def __init__(self, writer: framing.Writer, asking: Asking) -> None:
        self._writer = writer
        self._asking = asking
        self._stdin = False
        self._main = types.ModuleType("__main__")
        sys.modules["__main__"] = self._main
        self.namespace: dict[str, Any] = self._main.__dict__
        self.namespace["__builtins__"] = builtins
        self.result = NOTHING
        self.error: BaseException | None = None
        vars(builtins)["display"] = self._display
        vars(builtins)["input"] = lambda prompt="": self._ask("input", prompt, False)
        vars(getpass)["getpass"] = lambda prompt="Password: ", *_: self._ask("getpass", prompt, True)

    def _ask(self, name: str, prompt: Any, password: bool) -> str:
        if not self._stdin:
            raise StdinNotImplementedError("%s was called, but nobody can answer here" % name)
        return self._asking.ask(prompt, password)

    def transformed(self, code: str) -> str:
        return code

    def name_cells(self, numbers: dict[str, int]) -> None:
        """Nothing: plain tracebacks name files."""

    def _send(self, **fields: Any) -> None:
        if self._writer.ours:
            self._writer.message(json.dumps(fields, default=repr).encode())

    def _display(self, *values: Any) -> None:
        for value in values:
            self._send(type="display", data=bundle(value), metadata={}, transient={}, update=False)

    def run(
        self, code: str, execution_count: int, frontend: dict[str, Any], started: Callable[[], None]
    ) -> dict[str, Any]:
        self._stdin = bool(frontend.get("stdin"))
        name = "<cell %d>" % execution_count
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)

        def work() -> Any:
            value = self._execute(code, name)
            if value is not None:
                vars(builtins)["_"] = value
                self._send(type="result", data=bundle(value), metadata={}, execution_count=execution_count)
            return value

        return self._work(work, started)

    def call(self, function: Any, args: Any, kwargs: Any, started: Callable[[], None]) -> dict[str, Any]:
        """Call a function where a cell would run; a coroutine that it returns is awaited."""

        async def wait(value: Any) -> Any:
            return await value

        def work() -> Any:
            value = function(*args, **kwargs)
            return asyncio.run(wait(value)) if inspect.iscoroutine(value) else value

        return self._work(work, started)

    def _work(self, work: Callable[[], Any], started: Callable[[], None]) -> dict[str, Any]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        started()
        try:
            self.result = work()
            return {"status": "ok"}
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt end a cell like any other
            self.error = error
            return self._failed(error)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _failed(self, error: BaseException) -> dict[str, Any]:
        kind, frames = type(error), without_our_frames(error.__traceback__)
        shown = "".join(traceback.format_exception(kind, error.with_traceback(frames), frames)).splitlines()
        outcome = {"ename": kind.__name__, "evalue": str(error)}
        self._send(type="error", traceback=shown, **outcome)
        return dict(outcome, status="error")

    def _execute(self, code: str, name: str) -> Any:
        """Run the statements; return the value of a last expression that doesn't end in a semicolon."""
        tree = ast.parse(code, name)
        last = None
        final = tree.body[-1] if tree.body else None
        if isinstance(final, ast.Expr) and not code.rstrip().endswith(";"):
            last = ast.Expression(final.value)
            tree.body.pop()
        self._evaluate(tree, name, "exec")
        return None if last is None else self._evaluate(last, name, "eval")

    def _evaluate(self, tree: Any, name: str, mode: str) -> Any:
        compiled = compile(tree, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(compiled, self.namespace)
        if compiled.co_flags & inspect.CO_COROUTINE:
            return asyncio.run(value)
        return value
