"""The notebook against the whole platform of this machine: service, agent, runner, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def real_kernel(platform_env, tmp_path_factory, start_kernel_in) -> Iterator[Any]:
    yield from start_kernel_in(platform_env, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def quickstart(platform_env) -> dict[str, Any]:
    """The quickstart's cells by id, executed."""
    notebook = nbformat.read(QUICKSTART, as_version=4)
    NotebookClient(notebook, timeout=100, kernel_name="python3").execute(env=platform_env)
    return {cell.id: cell for cell in notebook.cells}


def text(cell: Any, name: str = "stdout") -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == name)


def is_card(output: dict[str, Any]) -> bool:
    """Say whether a display is the job's card: on a busy machine it stands above what the cell shows."""
    shown = output.get("data", {}).get("text/html", "")
    return shown.startswith("<small>") and output["data"]["text/plain"].startswith(("Job j", "Looking for", "Handing"))


def test_text_and_result(quickstart):
    cell = quickstart["text"]
    assert text(cell).startswith("hello from process ")
    assert text(cell, "stderr") == "and this went to stderr\n"
    (result,) = (output for output in cell.outputs if output.output_type == "execute_result")
    assert result.data == {"text/plain": "42"}
    assert result.execution_count == cell.execution_count


def test_a_table_is_html(quickstart):
    (result,) = (output for output in quickstart["table"].outputs if not is_card(output))
    assert "<table" in result.data["text/html"]
    assert "small" in result.data["text/plain"]


def test_a_figure_is_an_image(quickstart):
    (figure,) = (output for output in quickstart["figure"].outputs if not is_card(output))
    assert figure.data["image/png"].startswith("iVBORw0KGgo")


def test_a_progress_bar_is_complete(quickstart):
    shown = text(quickstart["progress"], "stderr")
    assert "training: 100%" in shown
    assert "30/30" in shown


def test_an_error_shows_the_far_traceback_alone(quickstart):
    (error,) = (output for output in quickstart["error"].outputs if not is_card(output))
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "division by zero")
    shown = "\n".join(error.traceback)
    assert "ratio" in shown
    assert f"[{quickstart['error'].execution_count}]" in shown
    assert "jupyter_gpu_platform" not in shown


def test_a_detached_job_comes_back(quickstart):
    (handle,) = quickstart["detach"].outputs
    assert "application/vnd.jupyter-gpu-platform.job+json" in handle.data
    assert "succeeded" in quickstart["wait"].outputs[0].data["text/plain"]
    assert text(quickstart["come-back"]) == "3\n2\n1\ndone\n"


CELLS = {
    "text": "print('one')\nprint('two')",
    "result": "[1, 2, 3]",
    "display": "from IPython.display import HTML\nh = display(HTML('1'), display_id='d1')\nh.update(HTML('2'))",
    "clear": "from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')",
    "frame": "import pandas\npandas.DataFrame({'a': [1, 2]})",
    "mid-cell error": "print('before')\n{}['missing']",
    "syntax error": "def f(:\n    pass",
    "awaited": "import asyncio\nawait asyncio.sleep(0.01)\n'slept'",
    "environment": "import os\nos.getcwd()",
}


def comparable(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what counts on between two runs (cell numbers, the names of cells in tracebacks), and the card."""
    kept = []
    for entry in outputs:
        if is_card(entry):
            continue
        entry = {name: value for name, value in entry.items() if name not in ("execution_count", "traceback")}
        kept.append(entry)
    return kept


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_run_as_a_job_gives_the_messages_of_the_cell_run_here(name, real_kernel):
    here = real_kernel.run(CELLS[name], timeout=60)
    there = real_kernel.run(f"%%gpu_run\n{CELLS[name]}", timeout=60)
    assert comparable(there.outputs()) == comparable(here.outputs())
    assert there.reply["status"] == here.reply["status"]
    assert there.reply.get("ename") == here.reply.get("ename")


def test_an_interrupt_reaches_the_code_in_the_job(real_kernel):
    cell = real_kernel.start("%%gpu_run\nimport time\nprint('working', flush=True)\ntime.sleep(100)")
    real_kernel.until_text(cell, "working")
    real_kernel.interrupt()
    shown = real_kernel.finish(cell)
    assert shown.reply["ename"] == "KeyboardInterrupt"
    (error,) = shown.contents("error")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    assert "time.sleep(100)" in plain
    assert real_kernel.run("%%gpu_run\nprint('alive')", timeout=60).text() == "alive\n"


def test_output_survives_a_killed_control_service_whole(real_kernel, platform_env, gpu):
    code = "import time\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.1)"
    cell = real_kernel.start(f"%%gpu_run\n{code}")
    first = real_kernel.message(cell)
    while first["msg_type"] != "stream":
        first = real_kernel.message(cell)
    os.kill(json.loads(gpu(platform_env, "up", "--json"))["pid"], signal.SIGKILL)
    shown = real_kernel.finish(cell, timeout=60)
    assert first["content"]["text"] + shown.text() == "".join(f"{i}\n" for i in range(40))
    assert shown.reply["status"] == "ok"


def test_another_kernel_attaches_to_a_job_that_was_left_running(real_kernel, platform_env, start_kernel_in):
    code = "import time\nprint('begun', flush=True)\ntime.sleep(1.5)\nprint('ended')"
    shown = real_kernel.run(f"%%gpu_run --detach\n{code}", timeout=60)
    job_id = shown.contents("execute_result")[0]["data"]["text/plain"].split()[1]
    with contextlib.closing(start_kernel_in(platform_env)) as kernels:
        other = next(kernels)
        assert other.run(f"%gpu attach {job_id}", timeout=60).text() == "begun\nended\n"
