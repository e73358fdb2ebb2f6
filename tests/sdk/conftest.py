"""One real platform of this machine for all tests of the SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import local
from jupyter_gpu_platform.client.current import current


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(root / "runtime"))
        patch.setenv("JUPYTER_GPU_STATE_DIR", str(root / "state"))
        patch.setenv("IPYTHONDIR", str(root / "ipython"))
        patch.delenv("JUPYTER_GPU_URL", raising=False)
        patch.delenv("JUPYTER_GPU_TOKEN", raising=False)
        local.ensure(options=("--fake-gpus=2",))
        try:
            yield dict(os.environ)
        finally:
            current().close()
            local.stop()


Program = Callable[[str], str]


@pytest.fixture
def program(environ: dict[str, str], tmp_path: Path) -> Program:
    """Runs a program of its own, in which what it defines is in ``__main__``; gives what it printed."""

    def run(text: str) -> str:
        path = tmp_path / "program.py"
        path.write_text("import jupyter_gpu_platform as gpu\n" + text)
        done = subprocess.run(
            [sys.executable, str(path)], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
