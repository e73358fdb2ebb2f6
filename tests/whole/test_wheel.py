"""What is shipped: the wheel, in empty environments, without the checkout and without Node.js."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import local

from .conftest import Place

CHECKOUT = Path(__file__).parents[2]

NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "jupyter_gpu_platform")
shell.run_cell_magic("gpu_run", "", "print('from a job:', 6 * 7)")
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps")
    run(*pip, "--wheel-dir", folder, CHECKOUT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, requirement: str) -> Path:
    """Make an empty environment with *requirement* alone; return its bin directory."""
    venv.create(folder, with_pip=True)
    pip = (folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, requirement, cwd=folder)
    return folder / "bin"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_gives_magic_and_command_line(
    wheel: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = environment(tmp_path / "full", f"{wheel}[local]")
    monkeypatch.setenv("PATH", f"{full}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert "hello\n" in run(full / "jupyter-gpu", "run", "--", "echo", "hello", cwd=tmp_path)
    assert "from a job: 42" in run(full / "python", "-c", NOTEBOOK, cwd=tmp_path)

    found = local.find()
    assert found is not None
    light = environment(tmp_path / "light", str(wheel))
    monkeypatch.setenv("JUPYTER_GPU_URL", found.url)
    monkeypatch.setenv("JUPYTER_GPU_TOKEN", found.token)
    assert "again\n" in run(light / "jupyter-gpu", "run", "--", "echo", "again", cwd=tmp_path)
    listed = run(light / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    assert not {"tornado", "SQLAlchemy"} & {line.partition("==")[0] for line in listed.splitlines()}
