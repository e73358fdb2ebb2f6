"""One local platform for all golden transcripts, and a pair of kernels that run in step.

Some jobs find a runner on standby, most come too fast for one. With ``JGP_GOLDEN_STANDBY=1`` each cell of
``pytest tests/golden/test_cells.py`` waits for one first, which takes some minutes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from jupyter_gpu_platform import client as platform

from .kernels import PATIENCE, Kernel, environment, kernel


@pytest.fixture(scope="package")
def platform_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which the local platform is a fresh one; it is stopped at the end."""
    env = environment(tmp_path_factory.mktemp("platform"))
    # The first import in a new home lists the machine's fonts, and says so to who logs: that is neither run's own.
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], env=env, check=True)
    with _variables(env):
        platform.ensure()
    yield env
    with _variables(env):
        platform.stop()


@contextmanager
def _variables(env: dict[str, str]) -> Iterator[None]:
    """This process finds the platform of *env* meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JUPYTER_GPU_URL", raising=False)
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_GPU_STATE_DIR"):
            patch.setenv(name, env[name])
        yield


@pytest.fixture(scope="module")
def pair(platform_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Kernel]]:
    """Two equal kernels; whatever is run in one is run in the other, so that cell numbers agree."""
    home = tmp_path_factory.mktemp("pair")
    with kernel(platform_env, home / "here") as here, kernel(platform_env, home / "there") as there:
        if os.environ.get("JGP_GOLDEN_STANDBY"):
            there.silent("%%gpu_run\nprint('the next one finds a runner')")
        yield here, there


@pytest.fixture
def client(platform_env: dict[str, str]) -> Iterator[platform.Client]:
    with _variables(platform_env), platform.connect() as connected:
        yield connected


def _until_one_stands_by(state_dir: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            with contextlib.suppress(psutil.NoSuchProcess):
                # One that serves a job has told its worker what to run, and no longer reads from the agent.
                if "supervise" in line and "--standby" in line and state_dir in line and _waits(process):
                    return
        threading.Event().wait(0.02)
    raise TimeoutError("no runner stands by")


def _waits(process: psutil.Process) -> bool:
    return Path(f"/proc/{process.pid}/fd/0").readlink().name.startswith("pipe:")


@pytest.fixture
def run_both(pair, platform_env):
    """Run one code in both kernels, the second one's under another text; return the two transcripts."""
    here, there = pair

    def run(code: str, other: str):
        if os.environ.get("JGP_GOLDEN_STANDBY") and "%%gpu_run" in other:
            _until_one_stands_by(platform_env["JUPYTER_GPU_STATE_DIR"])
        requests = [(one, one.start(text)) for one, text in ((here, code), (there, other))]
        return tuple(one.finish(request) for one, request in requests)

    yield run
    for one in pair:
        one.forget()
