"""What ``%load_ext jupyter_gpu_platform`` registers."""

from __future__ import annotations

from typing import Any

from .magic import Magic


def load(shell: Any) -> None:
    """Register ``%%gpu_run`` and ``%gpu`` with an IPython shell."""
    magic = Magic(shell)
    shell.register_magic_function(magic.gpu_run, "cell", "gpu_run")
    shell.register_magic_function(magic.gpu, "line", "gpu")
