"""Notebooks that nbclient executes hold the same outputs and the same widgets."""

from __future__ import annotations

import asyncio

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from .cells import CELLS
from .notebooks import KERNEL, PATIENCE, Pair, execute_both
from .transcripts import TIMES, tree_differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def client(notebook, directory, **options):
    return NotebookClient(
        notebook, timeout=PATIENCE, record_timing=False, resources={"metadata": {"path": str(directory)}}, **options
    )


@pytest.fixture(scope="module")
def executed(platform_env, tmp_path_factory) -> Pair:
    def execute(notebook, directory):
        # Not `execute`: in a thread that leaves an event loop behind.
        return asyncio.run(client(notebook, directory, allow_errors=True).async_execute(env=platform_env))

    return execute_both(execute, list(CELLS.values()), tmp_path_factory.mktemp("nbclient"))


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_has_the_same_outputs(name, executed):
    found = executed.differences(CELLS[name])
    assert not found, "\n".join(found)


def test_the_stored_widgets_are_the_same(executed):
    here, there = (one.widgets(frozenset({TIMES})) for one in (executed.here, executed.there))
    assert len(here["reply"]["state"]) > 50
    found = tree_differences(here, there)
    assert not found, "\n".join(found)


def test_run_all_stops_at_a_cell_that_fails(platform_env, tmp_path):
    sources = ["%load_ext jupyter_gpu_platform", "%%gpu_run\nprint('one')\n1 / 0", "print('never')"]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources], metadata=KERNEL)
    with pytest.raises(CellExecutionError, match="division by zero"):
        client(notebook, tmp_path).execute(env=platform_env)
    assert [output.output_type for output in notebook.cells[1].outputs] == ["stream", "error"]
    assert notebook.cells[1].outputs[1].ename == "ZeroDivisionError"
    assert notebook.cells[2].execution_count is None
    assert notebook.cells[2].outputs == []
