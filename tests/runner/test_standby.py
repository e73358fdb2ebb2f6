"""A supervisor and worker that were there before their attempt: as if they had been started for it, and used once."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import psutil
import pytest

#: Says what a job may know of where and as what it runs.
ABOUT = """
import os, signal, sys
print(os.getcwd(), os.environ["PWD_OF_JOB"], sys.path, _dh)
print({name: value for name, value in sorted(os.environ.items()) if name != "JGP_INCARNATION"})
print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), len(os.listdir("/proc/self/fd")), sys.stdin)
!echo $GREETING $CUDA_VISIBLE_DEVICES
"""
GIVEN = {
    "env": {"GREETING": "hello", "PWD_OF_JOB": "here"},
    "gpus": [{"index": 1, "uuid": "GPU-1", "fake": False}],
}


def worker_of(standby: subprocess.Popen[bytes], eventually) -> psutil.Process:
    def found() -> psutil.Process | None:
        below = psutil.Process(standby.pid).children()
        return below[0] if below and "worker" in below[0].cmdline() else None

    return eventually(found)


def test_a_job_finds_what_it_would_find_in_a_runner_of_its_own(attempt, eventually):
    attempt.cell(ABOUT, **GIVEN).finish()
    cold = attempt.agent.text()
    assert "'CUDA_VISIBLE_DEVICES': 'GPU-1'" in cold
    attempt.again()
    worker = worker_of(attempt.stand_by(), eventually)
    assert attempt.cell(ABOUT, **GIVEN).finish()["exit_code"] == 0
    assert attempt.agent.text() == cold
    assert not worker.is_running()


def test_its_identity_is_that_of_the_process_and_everything_it_starts_is_marked(attempt):
    standby = attempt.stand_by()
    attempt.cell("import os\nprint(os.environ['JGP_INCARNATION'], open('/proc/self/environ').read())").finish()
    incarnation = attempt.supervisor()["incarnation"]
    assert attempt.supervisor()["pid"] == standby.pid
    assert attempt.agent.claims[0]["incarnation"] == attempt.agent.end["incarnation"] == incarnation
    assert attempt.agent.text().startswith(incarnation)
    assert f"JGP_INCARNATION={incarnation}" in attempt.agent.text()


def test_nothing_runs_before_the_claim_is_granted(attempt, tmp_path):
    attempt.agent.grant = False
    attempt.stand_by()
    assert attempt.cell(f"open({str(tmp_path / 'ran')!r}, 'w')").finish()["reason"]["code"] == "claim_refused"
    assert not (tmp_path / "ran").exists()


def test_it_ends_with_its_stdin_and_its_worker_with_it(attempt, eventually):
    standby = attempt.stand_by()
    worker = worker_of(standby, eventually)
    standby.stdin.close()
    assert standby.wait(20) == 0
    eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_an_interrupt_while_it_waits_is_not_meant_for_it(attempt, eventually):
    standby = attempt.stand_by()
    worker = worker_of(standby, eventually)
    eventually(lambda: _ignores(worker.pid, signal.SIGINT) and _ignores(standby.pid, signal.SIGINT))
    os.kill(worker.pid, signal.SIGINT)
    os.kill(standby.pid, signal.SIGINT)
    attempt.cell("print('still there')").finish()
    assert attempt.agent.text() == "still there\n"


def _ignores(pid: int, number: int) -> bool:
    (mask,) = (
        line.split()[1]
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("SigIgn")
    )
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_interrupts_reach_the_code_that_it_runs(attempt):
    attempt.stand_by()
    attempt.cell("import time\nprint('on')\nwhile True: time.sleep(0.01)")
    attempt.agent.wait_for_text("on")
    attempt.agent.want(interrupts=1)
    assert attempt.finish()["reason"]["details"]["ename"] == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("name", "value", "shown", "expected"),
    [
        ("PYTHONHASHSEED", "0", "sys.flags.hash_randomization", "0"),
        ("TZ", "Asia/Tokyo", "time.tzname[0]", "JST"),
        ("LD_BIND_NOW", "1", "sys.argv[2]", "cell"),
        ("GREETING", "hello", "sys.argv[2]", "standby"),
    ],
)
def test_a_variable_that_comes_too_late_makes_the_worker_start_anew(attempt, name, value, shown, expected):
    attempt.stand_by()
    attempt.cell(f"import os, sys, time\nprint(os.environ[{name!r}], {shown})", env={name: value}).finish()
    assert attempt.agent.text() == f"{value} {expected}\n"


def test_what_was_installed_meanwhile_is_found(attempt, eventually, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    # It is imported once the worker has noted what is installed, and leaves us its plain shell.
    imported = tmp_path / "imported"
    (packages / "ipykernel.py").write_text(f"open({str(imported)!r}, 'w').close()\nraise ImportError\n")
    attempt.stand_by(str(tmp_path / "venv/bin/python"))
    eventually(imported.exists)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/just_installed.py").write_text("where = 'here'")
    (packages / "just_installed.pth").write_text(f"{tmp_path / 'elsewhere'}\n")
    attempt.cell("import just_installed; print(just_installed.where)", python=str(tmp_path / "venv/bin/python"))
    assert attempt.finish()["exit_code"] == 0
    assert attempt.agent.text() == "here\n"


def test_a_directory_that_is_gone_is_said(attempt, tmp_path):
    attempt.stand_by()
    reason = attempt.cell("1", workdir=str(tmp_path / "gone")).finish()["reason"]
    assert reason["code"] == "start_failed"
    assert str(tmp_path / "gone") in reason["message"]


def test_a_function_is_called_as_in_a_runner_of_its_own(attempt):
    attempt.stand_by()
    attempt.function(os.path.join, "a", "b").finish()
    (record,) = (r for r in attempt.agent.records if r["type"] == "values")
    assert record["entries"]
