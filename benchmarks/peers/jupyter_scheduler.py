"""jupyter-scheduler in a Jupyter server.

``python -m venv DIR && DIR/bin/pip install jupyter-scheduler jupyter-server``
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from load import load, requests
from scale import free_port

from . import await_answer, running, version

NAME = "jupyter-scheduler {version}, 4 clients, SQLite"
_NOTEBOOK = {"cells": [], "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
_JOB = {"name": "n", "input_uri": "n.ipynb", "runtime_environment_name": "python3", "output_formats": ["ipynb"]}
#: It starts a process for each job that it takes: few are sent, so that this bounds its figure as little as can be.
_CLIENTS, _SECONDS = 4, 3.0


def name(environment: Path) -> str:
    return NAME.format(version=version(environment / "bin" / "python", "jupyter_scheduler"))


@contextlib.contextmanager
def submissions(environment: Path) -> Iterator[Callable[[float], float]]:
    with tempfile.TemporaryDirectory(prefix="jgp-bench-peer-", ignore_cleanup_errors=True) as folder:
        port, log = free_port(), Path(folder, "log")
        Path(folder, "n.ipynb").write_text(json.dumps(_NOTEBOOK))
        options = ["--no-browser", "--allow-root", f"--port={port}", f"--ServerApp.root_dir={folder}"]
        options += ["--IdentityProvider.token=t", "--ServerApp.disable_check_xsrf=True"]
        options.append(f"--SchedulerApp.db_url=sqlite:///{folder}/jobs.db")
        folders = {"JUPYTER_DATA_DIR": folder, "JUPYTER_RUNTIME_DIR": folder}
        with running([environment / "bin" / "jupyter", "server", *options], log, folders):
            url = f"http://127.0.0.1:{port}"
            await_answer(f"{url}/api?token=t", log)
            request = requests(url, "/scheduler/jobs?token=t", "t", json.dumps(_JOB).encode(), idempotent=False)
            yield lambda seconds: load(url, request, connections=_CLIENTS, seconds=min(seconds, _SECONDS)).rate
