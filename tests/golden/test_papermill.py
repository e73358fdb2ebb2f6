"""Notebooks that papermill executes hold the same outputs; a cell that fails ends the run, as ever."""

from __future__ import annotations

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .cells import CELLS
from .notebooks import KERNEL, PATIENCE, Pair, execute_both
from .transcripts import tree_differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: papermill ends at the first error.
CELLS_THAT_END_WELL = {name: cell for name, cell in CELLS.items() if not cell.raises}


def run(notebook, directory, **parameters):
    source, target = directory / "in.ipynb", directory / "out.ipynb"
    nbformat.write(notebook, source)
    papermill.execute_notebook(
        source, target, parameters, cwd=directory, progress_bar=False, execution_timeout=PATIENCE
    )
    return nbformat.read(target, as_version=4)


@pytest.fixture(scope="module")
def papermill_env(platform_env):
    """papermill hands its own environment on to the kernel."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTEST_CURRENT_TEST", "JUPYTER_GPU_URL", "JUPYTER_GPU_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in platform_env.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def executed(papermill_env, tmp_path_factory) -> Pair:
    return execute_both(run, list(CELLS_THAT_END_WELL.values()), tmp_path_factory.mktemp("papermill"))


@pytest.mark.parametrize("name", CELLS_THAT_END_WELL)
def test_a_cell_has_the_same_outputs(name, executed):
    found = executed.differences(CELLS_THAT_END_WELL[name])
    assert not found, "\n".join(found)


def test_a_failing_cell_ends_the_run_and_is_kept_with_its_error(papermill_env, tmp_path):
    kept = []
    for magic in ("", "%%gpu_run\n"):
        directory = tmp_path / ((magic and "there") or "here")
        directory.mkdir()
        sources = ["%load_ext jupyter_gpu_platform", magic + "print('x')\n1 / 0", "print('never')"]
        notebook = new_notebook(cells=[new_code_cell(source) for source in sources], metadata=KERNEL)
        with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError") as raised:
            run(notebook, directory)
        left = nbformat.read(directory / "out.ipynb", as_version=4)
        outputs = [
            cell.outputs for cell in left.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", ())
        ]
        kept.append({"outputs": outputs, "error": [raised.value.ename, raised.value.evalue, raised.value.traceback]})
    assert not tree_differences(*kept)


def test_parameters_reach_the_job(papermill_env, tmp_path):
    sources = ["%load_ext jupyter_gpu_platform", "rate = 1", "%%gpu_run\nrate * 2"]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources], metadata=KERNEL)
    notebook.cells[1].metadata["tags"] = ["parameters"]
    assert run(notebook, tmp_path, rate=21).cells[-1].outputs[0].data == {"text/plain": "42"}
