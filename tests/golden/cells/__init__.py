"""The cells whose messages must be the same here and in a job, by subject."""

from . import failing, libraries, magics, running, shown  # noqa: F401 - each adds its cells
from .cell import CELLS, MAGIC, Cell

__all__ = ["CELLS", "MAGIC", "Cell"]
