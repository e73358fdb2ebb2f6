"""dstack's server: ``python -m venv DIR && DIR/bin/pip install 'dstack[server]'``.

Nothing is there to run the tasks on, so that only the submission is measured.
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

NAME = "dstack {version}, 8 clients, SQLite"
_CLIENTS = 8
_TOKEN = "benchmark"
_RUN = {"plan": {"run_spec": {"configuration": {"type": "task", "commands": ["true"]}}}, "force": False}


def name(environment: Path) -> str:
    return NAME.format(version=version(environment / "bin" / "python", "dstack"))


@contextlib.contextmanager
def submissions(environment: Path) -> Iterator[Callable[[float], float]]:
    with tempfile.TemporaryDirectory(prefix="jgp-bench-peer-", ignore_cleanup_errors=True) as folder:
        port, log = free_port(), Path(folder, "log")
        server = [environment / "bin" / "dstack", "server", "--port", str(port), "--token", _TOKEN, "-n"]
        env = {"HOME": folder, "DSTACK_SERVER_DIR": f"{folder}/server", "DO_NOT_TRACK": "1"}
        with running(server, log, env):
            url = f"http://127.0.0.1:{port}"
            await_answer(f"{url}/api/server/get_info", log)
            body = json.dumps(_RUN).encode()
            request = requests(url, "/api/project/main/runs/apply", _TOKEN, body, idempotent=False)
            yield lambda seconds: load(url, request, connections=_CLIENTS, seconds=seconds).rate
