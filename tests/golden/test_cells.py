"""Each cell gives the same messages and the same reply in a kernel and, from there, in a job."""

from __future__ import annotations

import pytest

from .cells import CELLS
from .transcripts import differences


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_gives_the_same_messages_here_and_in_a_job(name, run_both):
    cell = CELLS[name]
    found = differences(*run_both(cell.before, cell.before), cell.marks) if cell.before else []
    here, there = run_both(cell.here, cell.there)
    found += differences(here, there, cell.marks)
    found += differences(*run_both(cell.after, cell.after), cell.marks) if cell.after else []
    assert not found, "\n".join(found)
    assert (here.reply["status"] == "error") == cell.raises
