"""What a compared cell is."""

from __future__ import annotations

from dataclasses import dataclass

MAGIC = "%%gpu_run\n"


@dataclass(frozen=True)
class Cell:
    """One cell.

    :param code: what is run, here as it is, there under the magic.
    :param above: lines above the magic's own.
    :param before: a cell that both kernels run first, as it is.
    :param after: a cell that both kernels run afterwards, as it is; it is compared too.
    :param marks: rules of `transcripts.NORMALISED` that hold for this cell.
    :param terminal: it puts out the same in plain IPython, where libraries show another form than in a kernel; a
        job's shell is always a kernel.
    :param raises: its status is error, which ends a run of papermill.
    """

    name: str
    code: str
    above: str = ""
    before: str = ""
    after: str = ""
    marks: frozenset[str] = frozenset()
    terminal: bool = True
    raises: bool = False

    @property
    def here(self) -> str:
        return self.above + self.code

    @property
    def there(self) -> str:
        return self.above + MAGIC + self.code


#: all of them, by name
CELLS: dict[str, Cell] = {}


def cell(
    name: str,
    code: str,
    *marks: str,
    above: str = "",
    before: str = "",
    after: str = "",
    terminal: bool = True,
    raises: bool = False,
) -> None:
    """Add a cell to those that are compared."""
    assert name not in CELLS
    # The last line ends as in a notebook: without a newline.
    CELLS[name] = Cell(
        name, code.strip("\n"), above, before.strip("\n"), after.strip("\n"), frozenset(marks), terminal, raises
    )
