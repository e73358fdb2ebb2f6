"""Notebooks that papermill executes hold the same outputs; a cell that fails ends the run, as ever."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .cells import CELLS
from .notebooks import KERNEL, PATIENCE, Pair, execute_both
from .transcripts import tree_differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: papermill ends at the first error that is shown, also at one after which the cell goes on …
SHOWS_AN_ERROR = {"a shown traceback, then text", "an error in an Output widget"}
#: … and stores the whole notebook again and again: what is large comes last.
LARGE = ("ten megabytes", "one long line")
CELLS_THAT_END_WELL = {
    name: CELLS[name]
    for name in [*(name for name in CELLS if name not in LARGE), *LARGE]
    if not CELLS[name].raises and name not in SHOWS_AN_ERROR
}


def run(env, notebook, directory, *options):
    """Run the program `papermill`; return its exit code, what it said, and the notebook that it wrote."""
    nbformat.write(notebook, directory / "in.ipynb")
    argv = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--no-progress-bar", "--execution-timeout"]
    argv += [str(PATIENCE), *options]
    done = subprocess.run(argv, cwd=directory, env=env, capture_output=True, timeout=280, check=False)
    return done.returncode, done.stderr.decode(errors="replace"), nbformat.read(directory / "out.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed(platform_env, tmp_path_factory) -> Pair:
    def execute(notebook, directory):
        code, said, written = run(platform_env, notebook, directory)
        assert code == 0, said
        return written

    return execute_both(execute, list(CELLS_THAT_END_WELL.values()), tmp_path_factory.mktemp("papermill"))


@pytest.mark.parametrize("name", CELLS_THAT_END_WELL)
def test_a_cell_has_the_same_outputs(name, executed):
    found = executed.differences(CELLS_THAT_END_WELL[name])
    assert not found, "\n".join(found)


def test_a_failing_cell_ends_the_run_and_is_kept_with_its_error(platform_env, tmp_path):
    kept = []
    for name, magic in (("here", ""), ("there", "%%gpu_run\n")):
        directory = tmp_path / name
        directory.mkdir()
        sources = ["%load_ext jupyter_gpu_platform", f"{magic}print('x')\n1 / 0", "print('never')"]
        notebook = new_notebook(cells=[new_code_cell(source) for source in sources], metadata=KERNEL)
        code, said, written = run(platform_env, notebook, directory)
        assert code == 1
        assert "ZeroDivisionError: division by zero" in said
        # papermill adds a cell above the failed one that says so.
        cells = [cell for cell in written.cells if cell.cell_type == "code"]
        kept.append({"outputs": [cell.outputs for cell in cells], "counts": [cell.execution_count for cell in cells]})
    assert not tree_differences(*kept)


def test_parameters_reach_the_job(platform_env, tmp_path):
    sources = ["%load_ext jupyter_gpu_platform", "rate = 1", "%%gpu_run\nrate * 2"]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources], metadata=KERNEL)
    notebook.cells[1].metadata["tags"] = ["parameters"]
    code, said, written = run(platform_env, notebook, tmp_path, "-p", "rate", "21")
    assert code == 0, said
    assert written.cells[-1].outputs[0].data == {"text/plain": "42"}
