"""What ``%load_ext jupyter_gpu_platform`` registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .completion import Completer, Known, register
from .magic import Magic

if TYPE_CHECKING:
    from ..client import Client


def load(shell: Any) -> None:
    """Register ``%%gpu_run``, ``%gpu_run`` and ``%gpu``, their defaults and their completion with an IPython shell."""
    magic = Magic(shell)
    shell.register_magic_function(magic.gpu_run, "line_cell", "gpu_run")
    shell.register_magic_function(magic.gpu, "line", "gpu")
    # Where `%config GpuMagics` looks; a second load takes the place of the first.
    shell.configurables[:] = [one for one in shell.configurables if type(one).__name__ != "GpuMagics"]
    shell.configurables.append(magic.settings)
    register(shell, Completer(Known(_running), magic.settings, shell.user_ns))
    cleanup = shell.input_transformers_cleanup
    if with_a_body not in cleanup:
        cleanup.insert(0, with_a_body)


def _running() -> Client:
    """Return a client of the platform that is configured, or of this machine's where it runs."""
    from ..client import connect

    return connect(start=False)


def with_a_body(lines: list[str]) -> list[str]:
    """Give a cell that is the line ``%%gpu_run`` alone an empty body: without any, IPython says only that it lacks."""
    if len(lines) == 1 and lines[0].split()[:1] == ["%%gpu_run"]:
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines
