"""The SDK in a kernel: output under the cell, the far traceback alone, displays of jobs."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = {
    "define": (
        "import jupyter_gpu_platform as gpu\nimport time\n"
        "@gpu.remote\ndef divided(a, b):\n    print('dividing')\n    return a / b"
    ),
    "call": "divided(1, 2)",
    "error": "divided(1, 0)",
    "caught": "try:\n    divided(1, 0)\nexcept ZeroDivisionError as error:\n    print('caught', error)",
    "submitted error": "divided.submit(1, 0).result()",
    "awaited": "await divided.acall(3, 2)",
    "job": "job = gpu.run('echo shown', wait=False)\njob",
    "again": "job.wait()\njob.output()",
    "failed": "gpu.run('false')",
    "magic": "%load_ext jupyter_gpu_platform\njob = get_ipython().run_cell_magic('gpu_run', '--detach', '6 * 7')",
    "magic result": "job.result()",
}


@pytest.fixture(scope="module")
def cells(environ) -> dict[str, Any]:
    made = [nbformat.v4.new_code_cell(code, metadata={"tags": ["raises-exception"]}) for code in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=made)
    NotebookClient(notebook, timeout=100, kernel_name="python3").execute(env=environ)
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells), strict=True))


def test_a_call_shows_its_output_under_the_cell_and_gives_its_value(cells):
    stream, result = cells["call"]
    assert (stream.text, result.data["text/plain"]) == ("dividing\n", "0.5")


@pytest.mark.parametrize("name", ["error", "submitted error"])
def test_an_error_shows_the_far_traceback_alone(cells, name):
    (error,) = [output for output in cells[name] if output.output_type == "error"]
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "division by zero")
    shown = "\n".join(error.traceback)
    assert "return" in shown
    assert "in job j" in shown
    assert "jupyter_gpu_platform" not in shown


def test_an_error_that_is_caught_has_its_own_type(cells):
    assert "caught division by zero" in cells["caught"][-1].text


def test_a_cell_awaits_a_call(cells):
    assert cells["awaited"][-1].data["text/plain"] == "1.5"


def test_a_job_is_displayed_and_its_output_shown(cells):
    (handle,) = cells["job"]
    assert "application/vnd.jupyter-gpu-platform.job+json" in handle.data
    assert cells["again"][0].text == "shown\n"


def test_a_failed_command_shows_one_readable_block(cells):
    (error,) = cells["failed"]
    assert error.ename == "JobFailed"
    assert "exit code 1" in error.traceback[0]


def test_a_cells_job_gives_the_value_of_its_last_expression(cells):
    assert cells["magic result"][-1].data["text/plain"] == "42"
