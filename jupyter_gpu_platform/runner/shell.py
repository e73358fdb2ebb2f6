"""Picks what runs a cell: a real Jupyter kernel's shell where ipykernel can be imported, plain Python elsewhere."""

from __future__ import annotations

import faulthandler
import importlib
import sys
from typing import Any

from . import framing, streams


def make(writer: framing.Writer) -> Any:
    """Return an object with ``run(code, execution_count, started) -> {"status": "ok" | "error", …}``."""
    faulthandler.enable(file=2)  # says where a segfault happened, as a kernel does
    sys.stdout = streams.Stream(writer, "stdout")
    sys.stderr = streams.Stream(writer, "stderr")
    # A cell imports from its working directory first, as in a notebook.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        kernel_shell = importlib.import_module(__package__ + ".kernel_shell")
    except ImportError:
        return importlib.import_module(__package__ + ".plain_shell").PlainShell(writer)
    return kernel_shell.KernelShell(writer)
