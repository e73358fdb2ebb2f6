"""The log: who it is about is in every entry, and no secret is in any, at its most talkative."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupyter_gpu_platform import errors, logs, runtime
from jupyter_gpu_platform.client import Client, connect, local
from jupyter_gpu_platform.client.specifying import specify
from jupyter_gpu_platform.model.jobs import Cell, Frontend

from .conftest import JOB, TOKEN, Start, eventually

ENV_SECRET = "an-environment-value-that-is-secret"
ANSWER = "an-answer-that-is-secret"
TYPED = "a-wrong-token-that-is-secret"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_GPU_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("JUPYTER_GPU_URL", raising=False)
    local.ensure(options=("--log-level=DEBUG", "--log-format=json"))
    yield tmp_path / "state"
    local.stop()


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def test_no_secret_is_logged_and_each_entry_says_whom_it_is_about(state: Path) -> None:
    found = runtime.read_runtime_file()
    assert found is not None
    with connect() as client:
        secrets = [found.token, json.loads((state / "agent.json").read_text())["credential"]]
        secrets += [client.token_add("ada")["token"], client.cluster_add("far")["join_token"]]
        client.cluster_remove("far")
        job = _asking_job(client)
        with pytest.raises(errors.Unauthenticated):
            Client(found.url, TYPED).status()
        headers = {"Authorization": f"Bearer {found.token}", "X-Request-Id": "my-request"}
        with httpx.Client(base_url=found.url, headers=headers, trust_env=False) as raw:
            wrong = {"source": {"type": "command", "argv": ["true"]}, "env": {"A": [ENV_SECRET]}}
            refused = raw.post("/api/v1/jobs", json=wrong)
            assert refused.headers["X-Request-Id"] == refused.json()["request_id"] == "my-request"
    secrets += [ENV_SECRET, ANSWER, TYPED]
    local.stop()
    control, agent = state / "logs" / "control.log", state / "logs" / "agent.log"
    for path in (control, agent):
        text = path.read_text()
        assert text
        assert not [secret for secret in secrets if secret in text], path
    of_control, of_agent = entries(control), entries(agent)
    assert any(entry.get("request") == "my-request" and "/api/v1/jobs: 400" in entry["message"] for entry in of_control)
    claims = [entry for entry in of_control if entry["message"] == "claim granted"]
    assert [(entry["job"], entry["attempt"]) for entry in claims] == [(job, 1)]
    assert claims[0]["agent"] == json.loads((state / "agent.json").read_text())["agent_id"]
    assert any((entry.get("job"), entry.get("attempt")) == (job, 1) for entry in of_agent)


def _asking_job(client: Client) -> str:
    """Run a job that asks for something, and answer it."""
    cell = Cell(code="value = input('password? ')", frontend=Frontend(stdin=True))
    asking = client.submit(specify(cell, here=True, env={"SECRET": ENV_SECRET}))
    asked = next(record for record in client.follow(asking.id) if record["type"] == "input")

    def answered() -> bool:
        """Answer until that is recorded: an answer may be lost."""
        if client.output(asking.id, asked["cursor"]).records:
            return True
        client.answer(asking.id, asked["request"], ANSWER)
        return False

    eventually(answered, "the answer to arrive")
    client.wait(asking.id)
    ended = client.job(asking.id)
    assert ended.phase == "succeeded", ended.reason
    return asking.id


def test_an_entry_as_json_is_one_line_with_the_ids_that_hold_there() -> None:
    record = logging.LogRecord("jupyter_gpu_platform.x", logging.WARNING, "", 1, "two\n%s", ("lines",), None)
    with logs.about(request="r1", job="j1"), logs.about(attempt=2):
        line = logs.JsonLines().format(record)
        assert logs.current("request") == "r1"
    entry = json.loads(line)
    assert "\n" not in line
    assert (entry["message"], entry["request"], entry["job"], entry["attempt"]) == ("two\nlines", "r1", "j1", 2)
    assert logs.current("request") == ""
    assert "job" not in json.loads(logs.JsonLines().format(record))


def test_an_entry_as_text_shows_ids_and_an_exception() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        exc_info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("jupyter_gpu_platform.x", logging.ERROR, "", 1, "it failed", (), exc_info)
    with logs.about(job="j1", attempt=1):
        text = logs.TextLines().format(record)
    assert "error   platform.x: it failed job=j1 attempt=1\nTraceback" in text
    assert text.endswith("ValueError: why")


def test_a_command_says_that_the_service_is_away(start: Start) -> None:
    service = start()
    with service.client() as client:
        job = client.post("/api/v1/jobs", json=JOB).json()["id"]
    environ = dict(os.environ) | {"JUPYTER_GPU_URL": service.url, "JUPYTER_GPU_TOKEN": TOKEN}
    command = [sys.executable, "-m", "jupyter_gpu_platform.cli.main", "attach", job]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        try:
            assert "queued" in program.stderr.readline()
            service.kill()
            said = program.stderr.readline()
            assert "can't be reached" in said
            assert "trying again, and jobs go on meanwhile" in said
        finally:
            program.kill()
