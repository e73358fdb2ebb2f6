"""The commands, as programs of their own, against a real platform of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import connect, local
from jupyter_gpu_platform.model.jobs import Phase


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(root / "runtime"))
        patch.setenv("JUPYTER_GPU_STATE_DIR", str(root / "state"))
        patch.delenv("JUPYTER_GPU_URL", raising=False)
        local.ensure(options=("--fake-gpus=2",))
        try:
            yield dict(os.environ)
            with connect() as client:
                for job in client.iter_jobs(phases=[Phase.QUEUED, Phase.STARTING, Phase.RUNNING]):
                    client.cancel(job.id)
                    client.wait(job.id, timeout=30)
        finally:
            local.stop()


class Gpu:
    """``jupyter gpu``."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def start(self, *line: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "jupyter_gpu_platform.cli.main", *line]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def __call__(self, *line: str, code: int = 0) -> tuple[str, str]:
        with self.start(*line) as program:
            out, err = program.communicate(timeout=60)
        assert program.returncode == code, err
        return out, err


@pytest.fixture
def gpu(environ: dict[str, str]) -> Gpu:
    return Gpu(environ)


@pytest.fixture
def finished(gpu: Gpu) -> str:
    """The id of a job that has put out three lines and ended."""
    out, _ = gpu("run", "--json", "--name", "three", "--", "sh", "-c", "echo 1; echo 2; echo 3")
    return json.loads(out.splitlines()[-1])["job"]["id"]


def test_run_gives_the_command_s_output_and_exit_code(gpu: Gpu, tmp_path: Path) -> None:
    script = 'echo out "$WORD"; echo oh >&2; pwd; exit 3'
    out, err = gpu("run", "--env", "WORD=hi", "--workdir", str(tmp_path), "--", "sh", "-c", script, code=3)
    assert out == f"out hi\n{tmp_path}\n"
    assert "oh\n" in err


def test_run_gives_a_job_its_gpus(gpu: Gpu) -> None:
    out, _ = gpu("run", "--gpus", "1", "--", "sh", "-c", 'echo "gpu: $CUDA_VISIBLE_DEVICES"')
    assert out.strip() != "gpu:"


def test_a_detached_job_is_listed_followed_and_cancelled(gpu: Gpu) -> None:
    out, _ = gpu("run", "--detach", "--name", "sleeper", "--", "sh", "-c", "echo begun; exec sleep 600")
    job_id = out.strip()
    with gpu.start("logs", "-f", job_id[:-1]) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begun\n"
        listed, _ = gpu("ls")
        assert "sleeper" in listed
        assert job_id in listed
        assert "is being cancelled" in gpu("cancel", job_id)[0]
        assert follower.wait(timeout=30) == 0
    assert json.loads(gpu("show", "--json", job_id)[0])["job"]["phase"] == "cancelled"
    assert "has ended: cancelled" in gpu("cancel", job_id)[0]


def test_ctrl_c_cancels_where_nobody_can_be_asked(gpu: Gpu) -> None:
    with gpu.start("run", "--", "sh", "-c", "echo begun; exec sleep 600") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=30) == 130


@pytest.mark.parametrize(("key", "phase"), [("d", Phase.RUNNING), ("c", Phase.CANCELLED)])
def test_ctrl_c_asks_who_sits_at_a_terminal(gpu: Gpu, key: str, phase: Phase) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "jupyter_gpu_platform.cli.main", "run", "--", "sh", "-c", "echo begun; sleep 600"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=gpu.environ, stdin=theirs, stdout=pipe, stderr=theirs) as program:
        os.close(theirs)
        assert program.stdout is not None
        assert program.stdout.readline() == b"begun\n"
        program.send_signal(signal.SIGINT)
        shown = b""
        while b"(Ctrl-C cancels)" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, key.encode() + b"\n")
        assert program.wait(timeout=30) == 130
    os.close(ours)
    with connect() as client:
        job = next(client.iter_jobs())
        assert job.phase is phase
        if not job.phase.ended:
            client.cancel(job.id)


def test_logs_and_their_tail(gpu: Gpu, finished: str) -> None:
    assert gpu("logs", finished)[0] == "1\n2\n3\n"
    assert gpu("logs", finished, "--tail", "2")[0] == "2\n3\n"
    assert gpu("logs", "-f", finished, "-n", "1")[0] == "3\n"
    records = [json.loads(line) for line in gpu("logs", "--json", finished)[0].splitlines()]
    assert records[-1]["type"] == "exit"
    assert records[-1]["exit_code"] == 0


def test_show_tells_all(gpu: Gpu, finished: str) -> None:
    out, _ = gpu("show", finished)
    assert "succeeded" in out
    assert "echo 3" in out
    told = json.loads(gpu("show", finished, "--json")[0])
    assert set(told) == {"job", "attempts", "events"}
    assert told["attempts"][0]["number"] == 1


def test_ls_as_json_holds_jobs_that_ended_only_when_asked(gpu: Gpu, finished: str) -> None:
    def ids(*line: str) -> list[str]:
        return [job["id"] for job in json.loads(gpu("ls", "--json", *line)[0])["items"]]

    assert finished in ids("--all")
    assert finished not in ids()
    assert ids("--phase", "succeeded", "--limit", "1") == [finished]


def test_an_id_that_is_slightly_wrong_gets_a_suggestion(gpu: Gpu, finished: str) -> None:
    wrong = finished[:-2] + "ii"
    _, err = gpu("show", wrong, code=1)
    assert f"there is no job '{wrong}'" in err
    assert finished in err
    assert "Traceback" not in err


def test_status_up_and_down_agree(gpu: Gpu, tmp_path: Path) -> None:
    assert json.loads(gpu("status", "--json")[0])["status"]["fake_gpus"] == 2
    assert "local" in gpu("status")[0]
    assert "Running already" in gpu("up")[0]
    elsewhere = Gpu(
        gpu.environ | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "r"), "JUPYTER_GPU_STATE_DIR": str(tmp_path / "s")}
    )
    assert json.loads(elsewhere("status", "--json")[0]) == {"running": False}
    assert json.loads(elsewhere("up", "--json")[0])["started"]
    assert json.loads(elsewhere("down", "--json")[0]) == {"stopped": True}
    assert json.loads(elsewhere("down", "--json")[0]) == {"stopped": False}


def test_a_broken_pipe_is_no_error(gpu: Gpu, finished: str) -> None:
    with gpu.start("logs", finished) as program:
        assert program.stdout is not None
        program.stdout.close()
        assert program.wait(timeout=30) == 0
