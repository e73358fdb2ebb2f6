"""The worker's side of standing by: it imports a kernel's shell, waits, and becomes the worker of one job.

What it does before it knows its job is what any worker does, job or none. What a job brings (its variables, its
directory) is put in place before the shell is made and before any of the user's code runs. Where that comes too late,
since something has read it already, or packages were installed meanwhile, the process starts itself anew.
"""

from __future__ import annotations

import gc
import importlib
import os
import site
from typing import Any

from . import shell
from .asking import Asking

#: How the names of variables begin that the interpreter, the C library or an imported module may have read by now.
_READ_EARLY = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "HOME", "XDG_", "IPYTHON", "JUPYTER_", "JPY_")
#: These the platform itself gives to jobs, and their code alone reads them.
_READ_LATE = ("JUPYTER_GPU_",)


def become(asking: Asking, tail: list[str]) -> str | None:
    """Wait for a job and get ready to run it; returns its kind, or None where there will be none.

    :param tail: this worker's arguments after the kind.
    :raises OSError: its working directory can't be entered.
    """
    gc.disable()
    known = _installed()
    shell.preload()
    gc.freeze()  # it is never looked through again
    gc.enable()
    told = asking.receive()
    if told is None:
        return None
    if told["workdir"]:
        os.chdir(told["workdir"])
    if any(_early(name) for name in told["changes"]) or _installed() != known:
        _start_anew(told, tail)
    for name, value in told["changes"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    importlib.invalidate_caches()
    return str(told["kind"])


def _early(name: str) -> bool:
    return name.startswith(_READ_EARLY) and not name.startswith(_READ_LATE)


def _installed() -> dict[str, int]:
    """Say when something was last installed where the interpreter looks for packages."""
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    found = {}
    for folder in folders:
        try:
            found[folder] = os.stat(folder).st_mtime_ns
        except OSError:
            continue
    return found


def _start_anew(told: dict[str, Any], tail: list[str]) -> None:
    """Replace this process by a worker that was never on standby: the same pid, parent and pipes."""
    for fd in tail[:2]:
        os.set_inheritable(int(fd), True)
    here = os.path.dirname(os.path.abspath(__file__))
    os.execvpe(told["python"], [told["python"], here, "worker", told["kind"], *tail], told["env"])
