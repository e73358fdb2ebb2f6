"""The notebooks in examples/ run from top to bottom against a platform of this machine, and show what they promise."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from jupyter_gpu_platform import client as platform

EXAMPLES = Path(__file__).parents[2] / "examples"
#: the quickstart has tests of its own
RUN_HERE = ("training", "sweep", "detach", "script")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == {"quickstart", *RUN_HERE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples: a notebook may write beside itself."""
    return Path(shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("examples") / "examples"))


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JUPYTER_GPU_URL", raising=False)
        patch.delenv("JUPYTER_GPU_TOKEN", raising=False)
        patch.setenv("JUPYTER_RUNTIME_DIR", str(home / "runtime"))
        patch.setenv("JUPYTER_GPU_STATE_DIR", str(home / "state"))
        patch.setenv("IPYTHONDIR", str(home / "ipython"))
        # As in an activated environment: a notebook calls `jupyter` and `python`.
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        try:
            yield dict(os.environ)
        finally:
            platform.stop()


@pytest.fixture(scope="module")
def executed(environ: dict[str, str], folder: Path) -> dict[str, dict[str, Any]]:
    """The cells of each notebook by id, after it has run."""
    found = {}
    for name in RUN_HERE:
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute(env=environ)
        found[name] = {cell.id: cell for cell in notebook.cells}
    return found


def text(cell: Any) -> str:
    """All that the cell shows, as text."""
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(parts)


def test_training_shows_a_bar_and_brings_its_weights_back(executed: dict[str, dict[str, Any]]) -> None:
    cells = executed["training"]
    widgets = [
        output
        for output in cells["train"].outputs
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert len(widgets) == 1
    right = re.search(r"right: ([\d.]+)%", text(cells["train"]))
    assert right is not None
    assert float(right[1]) > 95
    assert any("image/png" in output.get("data", {}) for output in cells["draw"].outputs)


def test_the_sweep_gives_a_row_for_each_setting_in_order(executed: dict[str, dict[str, Any]]) -> None:
    cells = executed["sweep"]
    assert "'degree': 3" in text(cells["once"])
    rows = re.findall(r"^\d+ +(\d+) ", text(cells["map"]), re.MULTILINE)
    assert rows == [str(degree) for degree in range(1, 13)]
    assert "best degree: " in text(cells["best"])


def test_a_detached_job_is_found_and_shown_from_its_beginning(executed: dict[str, dict[str, Any]]) -> None:
    cells = executed["detach"]
    assert "long-training" in text(cells["jobs"])
    assert "epochs: 100%" in text(cells["attach"])
    assert "accuracy 0.93" in text(cells["attach"])
    assert "succeeded" in text(cells["end"])


def test_a_script_gets_its_arguments(executed: dict[str, dict[str, Any]]) -> None:
    cells = executed["script"]
    assert text(cells["run"]).count("epoch ") == 6
    assert text(cells["shell"]).count("epoch ") == 2
    assert "succeeded" in text(cells["python"])
