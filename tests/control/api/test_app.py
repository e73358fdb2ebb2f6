"""The program: what it says when it can't start, and that it ends in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from jupyter_gpu_platform import runtime

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "jupyter_gpu_platform.control", "--state-dir", str(tmp_path / "state")]
        process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def eventually(look: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < until, "it did not happen in time"
        threading.Event().wait(0.02)  # another process: nothing here can be waited for


def test_the_local_platform_writes_its_runtime_file_and_removes_it(start: Start, tmp_path: Path) -> None:
    process = start("--local")
    eventually(lambda: runtime.read_runtime_file() or process.poll() is not None)
    found = runtime.read_runtime_file()
    assert found is not None
    assert (found.pid, found.alive) == (process.pid, True)
    assert runtime.runtime_path().stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state" / "agent.json").stat().st_mode & 0o777 == 0o600
    headers = {"Authorization": f"Bearer {found.token}"}
    with httpx.Client(base_url=found.url, headers=headers, trust_env=False) as client:
        status = client.get("/api/v1/status").json()
        assert (status["local"], status["role"]) == (True, "admin")
        assert client.post("/api/v1/shutdown", json={}).status_code == 202
    assert process.wait(30) == 0
    assert runtime.read_runtime_file() is None


def test_sigterm_ends_it_in_good_order_and_the_first_admin_has_a_token(start: Start, tmp_path: Path) -> None:
    process = start()
    assert process.stderr is not None
    url = next(line for line in process.stderr if "listening at" in line).split("listening at ")[1].split('"')[0]
    next(line for line in process.stderr if "admin.token" in line)
    token = (tmp_path / "state" / "admin.token").read_text().strip()
    answer = httpx.get(f"{url}/api/v1/status", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert (answer.json()["user"], answer.json()["local"]) == ("admin", False)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        (("--database-url", "mongodb://x"), "sqlite"),
        (("--ip", "203.0.113.7"), "--ip"),
        (("--token-file", "/proc/none"), "--token-file"),
        (("--idle-exist", "3"), "--idle-exit"),
    ],
)
def test_what_stops_it_is_told_in_one_line(start: Start, options: tuple[str, ...], fix: str) -> None:
    process = start(*options)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    last = told.strip().splitlines()[-1]
    assert last.startswith("jupyter-gpu-control: ")
    assert fix in last
    assert "Traceback" not in told
