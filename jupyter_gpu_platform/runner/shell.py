"""Picks what runs a cell: a real Jupyter kernel's shell where ipykernel can be imported, plain Python elsewhere."""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
from typing import Any

from . import framing, streams
from .asking import Asking


def make(writer: framing.Writer, asking: Asking) -> Any:
    """Return a shell.

    Its ``run(code, execution_count, frontend, started)`` and ``call(function, args, kwargs, started)`` return
    ``{"status": "ok" | "error", …}``; after them, ``result`` and ``error`` are what came of it. ``namespace`` is where
    the user's names are; ``name_cells({filename: number})`` says which code came from which cell; ``transformed(code)``
    is *code* as plain Python.
    """
    faulthandler.enable(file=2)  # says where a segfault happened, as a kernel does
    sys.stdout = streams.Stream(writer, "stdout")
    sys.stderr = streams.Stream(writer, "stderr")
    # A cell imports from its working directory first, as in a notebook.
    if "" not in sys.path:
        sys.path.insert(0, "")
    return preload()(writer, asking)


def preload() -> Any:
    """Import the shell's class and return it: what takes long, and is the same for every job."""
    try:
        return importlib.import_module(__package__ + ".kernel_shell").KernelShell
    except ImportError:
        return importlib.import_module(__package__ + ".plain_shell").PlainShell


def without_our_frames(frames: Any) -> Any:
    """Leave out the beginning of a traceback that is no part of the user's story: this folder's, and the loop's."""
    here = os.path.dirname(os.path.abspath(__file__)) + os.sep
    rest = frames
    while rest is not None:
        if rest.tb_frame.f_code.co_filename.startswith(here):
            frames = rest.tb_next  # a loop between two frames of ours goes as well
        elif os.sep + "asyncio" + os.sep not in rest.tb_frame.f_code.co_filename:
            break
        rest = rest.tb_next
    return frames
