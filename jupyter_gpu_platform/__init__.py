"""Run notebook cells, functions, scripts and commands on GPUs, from inside Jupyter or from plain Python.

::

    import jupyter_gpu_platform as gpu

    gpu.run("python train.py", gpus=2)

    @gpu.remote(gpus=1)
    def square(x):
        return x * x

    square(3)                          # 9
    job = square.submit(4)             # a Job: job.result(), job.output(), job.cancel(), …
    list(square.map(range(100)))

    gpu.jobs()
    gpu.attach("j…").result()

    with gpu.connect("https://gpu.example.org", token):
        square(5)

Importing this package is cheap: everything is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import errors
    from .client.current import Connection, connect
    from .client.specifying import Options
    from .notebook.failures import FarError, JobFailed
    from .notebook.handle import Job, JobList
    from .notebook.outcomes import FarTraceback, ValueMissing
    from .sdk.commands import attach, jobs, run
    from .sdk.functions import RemoteFunction, remote
    from .sdk.mapping import Calls

_HOMES = {
    "Calls": "sdk.mapping",
    "Connection": "client.current",
    "FarError": "notebook.failures",
    "FarTraceback": "notebook.outcomes",
    "Job": "notebook.handle",
    "JobFailed": "notebook.failures",
    "JobList": "notebook.handle",
    "Options": "client.specifying",
    "RemoteFunction": "sdk.functions",
    "ValueMissing": "notebook.outcomes",
    "attach": "sdk.commands",
    "connect": "client.current",
    "jobs": "sdk.commands",
    "remote": "sdk.functions",
    "run": "sdk.commands",
}

__all__ = [
    "Calls",
    "Connection",
    "FarError",
    "FarTraceback",
    "Job",
    "JobFailed",
    "JobList",
    "Options",
    "RemoteFunction",
    "ValueMissing",
    "__version__",
    "attach",
    "connect",
    "errors",
    "jobs",
    "load_ipython_extension",
    "remote",
    "run",
]


def __getattr__(name: str) -> object:
    import importlib

    if name == "errors":
        return importlib.import_module(".errors", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: object) -> None:
    """Register the magics; called by ``%load_ext jupyter_gpu_platform``."""
    from .notebook import extension

    extension.load(ipython)
