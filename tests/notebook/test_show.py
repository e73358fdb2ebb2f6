"""The program that shows a notebook in the terminal, on a notebook that needs nothing of the platform."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SHOW = Path(__file__).parents[2] / "examples" / "show.py"


def run(tmp_path: Path, *sources: str) -> subprocess.CompletedProcess[str]:
    cells = [new_markdown_cell("# Title"), *map(new_code_cell, sources)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "some.ipynb")
    argv = [sys.executable, str(SHOW), str(tmp_path / "some.ipynb"), "--images", str(tmp_path / "images")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)


def test_text_tables_and_images_show_each_in_its_way(tmp_path):
    shown = run(
        tmp_path,
        "print('10%\\r100%')",
        "from IPython.display import HTML\ndisplay({'text/html': '<table/>', 'text/plain': 'a  b'}, raw=True)",
        "display({'image/svg+xml': '<svg/>', 'text/plain': 'a figure'}, raw=True)",
    )
    assert shown.returncode == 0, shown.stderr
    assert "# Title" in shown.stdout
    assert "\n100%\n" in shown.stdout
    assert "10%\r" not in shown.stdout
    assert "a  b\n[shown in a notebook as text/html]" in shown.stdout
    assert f"saved to {tmp_path}/images/image-1.svg" in shown.stdout
    assert (tmp_path / "images" / "image-1.svg").read_text() == "<svg/>"


def test_a_failing_cell_shows_its_traceback_and_ends_the_run(tmp_path):
    shown = run(tmp_path, "1 / 0", "print('not reached')")
    assert shown.returncode == 1
    assert "ZeroDivisionError" in shown.stdout
    assert "\nnot reached" not in shown.stdout
