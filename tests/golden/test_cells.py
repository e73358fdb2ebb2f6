"""Each cell gives the same messages and the same reply in a kernel and, from there, in a job."""

from __future__ import annotations

import pytest

from .cells import CELLS
from .transcripts import differences


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_gives_the_same_messages_here_and_in_a_job(name, run_both):
    cell = CELLS[name]
    steps = [(cell.before, cell.before), (cell.here, cell.there), (cell.after, cell.after)]
    found = []
    for code, other in steps:
        if code:
            found += differences(*run_both(code, other), cell.marks)
    assert not found, "\n".join(found)
