"""Run notebook cells, scripts and commands on GPUs, from inside Jupyter.

Importing this package is cheap: everything heavy is imported where it is used.
"""

from ._version import __version__

__all__ = ["__version__", "load_ipython_extension"]


def load_ipython_extension(ipython: object) -> None:
    """Register the magics; called by ``%load_ext jupyter_gpu_platform``."""
    from .notebook import extension

    extension.load(ipython)
