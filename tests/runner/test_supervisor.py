"""Starting, stopping and ending: what the supervisor does, whatever the user's code, the agent and the link do."""

from __future__ import annotations

import pathlib
import signal
import sys

import pytest

from jupyter_gpu_platform.runner import processes
from jupyter_gpu_platform.runner.values import Packer

LOOP = (
    "import itertools, time\nfor n in itertools.count():\n    print(n)\n    time.sleep(0.002)\n    if n == 800: break"
)


def test_a_command_runs_with_its_arguments_and_environment(attempt, agent):
    attempt.command(
        "sh", "-c", 'echo "$0 $GREETING $JGP_JOB_ID $CUDA_VISIBLE_DEVICES."; exit 5', env={"GREETING": "hi"}
    )
    result = attempt.finish()
    assert agent.text() == "sh hi j1 .\n"
    assert (result["exit_code"], result["reason"]["code"]) == (5, "exit_code")


def test_python_is_the_jobs_own_interpreter(attempt, agent):
    attempt.command("python3", "-c", "import sys; print(sys.executable)")
    attempt.finish()
    assert pathlib.Path(agent.text().strip()).parent == pathlib.Path(sys.executable).parent


def test_a_script_runs_in_its_working_directory(attempt, agent):
    (attempt.folder / "work").mkdir()
    (attempt.folder / "work" / "job.py").write_text("import sys, os; print(sys.argv[1:], os.getcwd())")
    attempt.start({"type": "script", "path": "job.py", "args": ["a", "b c"]})
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == f"['a', 'b c'] {attempt.folder}/work\n"


def test_a_program_that_does_not_exist_is_a_failed_start(attempt, agent):
    attempt.command("no-such-program-anywhere")
    result = attempt.finish()
    assert result["reason"]["code"] == "start_failed"
    assert "no-such-program-anywhere" in result["reason"]["message"]
    assert agent.end["exit_code"] is None


def test_an_interpreter_that_does_not_exist_is_a_failed_start(attempt, agent):
    attempt.cell("print(1)", python="/no/such/python")
    assert "/no/such/python" in attempt.finish()["reason"]["message"]
    assert agent.end["reason"]["code"] == "start_failed"


def test_an_interpreter_that_cannot_run_says_why(attempt, agent):
    broken = attempt.folder / "python"
    broken.write_text("#!/bin/sh\necho this python is broken >&2\nexit 1\n")
    broken.chmod(0o700)
    attempt.cell("print(1)", python=str(broken))
    assert "this python is broken" in attempt.finish()["reason"]["message"]


def test_no_user_code_runs_when_the_claim_is_refused(attempt, agent):
    agent.grant = False
    proof = attempt.folder / "ran"
    attempt.command("touch", str(proof))
    result = attempt.finish()
    assert not proof.exists()
    assert agent.lines == []
    assert result["reason"]["code"] == "claim_refused"


def test_the_claim_is_asked_for_until_it_is_answered(attempt, agent):
    agent.refuse["claim"] = 3
    agent.lose["claim"] = 2
    attempt.command("echo", "claimed")
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "claimed\n"
    assert len(agent.claims) == 1


def test_a_stop_before_the_claim_runs_nothing(attempt, agent):
    agent.refuse["claim"] = 10**6
    agent.want("stop")
    proof = attempt.folder / "ran"
    attempt.command("touch", str(proof))
    assert attempt.finish()["reason"]["code"] == "stopped"
    assert not proof.exists()
    assert agent.end["exit_code"] is None


def test_a_stop_is_polite_first(attempt, agent):
    attempt.command("sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    agent.wait_for_text("up\n")
    agent.want("stop", grace=30)
    result = attempt.finish()
    assert agent.text() == "up\nbye\n"
    assert (result["exit_code"], result["reason"]["code"]) == (0, "stopped")


def test_a_stop_kills_what_does_not_heed_it(attempt, agent):
    attempt.command("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    agent.wait_for_text("up\n")
    agent.want("stop", grace=0.2)
    result = attempt.finish()
    assert (result["signal"], result["reason"]["code"]) == (9, "stopped")


def test_the_run_time_is_limited(attempt, agent):
    attempt.command("sleep", "1000", limits={"max_run_seconds": 0.3, "grace_seconds": 5.0})
    result = attempt.finish()
    assert result["reason"]["code"] == "max_run_time"
    assert result["signal"] == signal.SIGTERM


def test_sigterm_ends_the_users_processes_and_output_is_flushed(attempt, agent):
    attempt.command("sh", "-c", "trap 'echo last words; exit 1' TERM; echo up; while :; do sleep 0.05; done")
    agent.wait_for_text("up\n")
    attempt.process.send_signal(signal.SIGTERM)
    assert attempt.finish()["reason"]["code"] == "stopped"
    assert agent.text() == "up\nlast words\n"


def test_daemons_end_with_the_command(attempt, agent):
    attempt.command("sh", "-c", "setsid sh -c 'setsid sleep 1000 & echo $!; exit' ; sleep 0.1")
    attempt.finish()
    assert processes.start_time(int(agent.text())) is None


def test_the_worker_ends_when_the_supervisor_is_killed(attempt, agent, eventually):
    attempt.command("sh", "-c", "echo $$; exec sleep 1000")
    agent.wait(lambda: agent.text())
    pid = int(agent.text())
    attempt.process.kill()
    attempt.process.wait()
    eventually(lambda: processes.start_time(pid) is None)


def test_simulated_gpus_are_called_so_first(attempt, agent):
    gpus = [{"index": 0, "uuid": "GPU-fake-0", "fake": True}]
    attempt.command("sh", "-c", "echo $CUDA_VISIBLE_DEVICES $JUPYTER_GPU_FAKE", gpus=gpus)
    assert attempt.finish()["exit_code"] == 0
    first = agent.records[0]
    assert first["name"] == "stderr"
    assert "simulate" in first["text"]
    assert agent.text() == "GPU-fake-0 1\n"


def test_records_survive_an_agent_that_restarts_refuses_and_loses_answers(attempt, agent):
    agent.lag = True
    attempt.cell(LOOP)
    agent.wait_for_text("10\n")
    agent.commit()
    agent.refuse["records"] = 2
    agent.lose["records"] = 2
    agent.lag = True
    agent.wait_for_text("100\n")
    agent.stop()
    agent.start()
    agent.wait_for_text("200\n")
    agent.lose["wanted"] = 1
    agent.stop()
    agent.start()
    agent.wait_for_text("800\n")
    assert attempt.process.poll() is None
    agent.wait(lambda: attempt.types()[-1:] == ["exit"])
    assert agent.end is None, "the end was reported before everything was durable"
    agent.commit()
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "".join(f"{n}\n" for n in range(801))
    assert agent.end["last_seq"] == len(agent.lines)


def test_an_agent_that_is_away_gets_everything_later(attempt, agent, eventually):
    attempt.command("sh", "-c", "echo up; until [ -e go ]; do sleep 0.01; done; seq 1 100000; touch done")
    agent.wait_for_text("up\n")
    agent.stop()
    (attempt.folder / "work" / "go").touch()
    eventually((attempt.folder / "exit.json").exists)
    agent.start()
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "up\n" + "".join(f"{n}\n" for n in range(1, 100_001))


def until_told(what):
    return f"{what}; until [ -e go ]; do sleep 0.01; done; echo end"


def test_what_a_store_lost_that_was_replaced_by_an_older_copy_is_sent_again(attempt, agent):
    attempt.command("sh", "-c", until_told("echo one; until [ -e on ]; do sleep 0.01; done; echo two"))
    agent.wait_for_text("one\n")
    (attempt.folder / "work" / "on").touch()
    agent.wait_for_text("one\ntwo\n")
    agent.forget_from(2)
    (attempt.folder / "work" / "go").touch()
    attempt.finish()
    assert agent.text() == "one\ntwo\nend\n"


def test_in_the_place_of_what_is_lost_for_good_stands_a_note_and_nothing_else(attempt, agent):
    attempt.command("sh", "-c", until_told("yes x | head -c 20000000; echo full"))
    agent.wait(lambda: agent.lines and b"full" in agent.lines[-1])
    before = len(agent.lines)
    agent.forget_from(2)
    (attempt.folder / "work" / "go").touch()
    attempt.finish()
    records = agent.records
    (gap,) = (record for record in records if record["type"] == "gap")
    assert gap["code"] == "store_restored"
    shown = "".join(record["text"] for record in records[gap["seq"] :] if record["type"] == "stream")
    assert 2 < gap["seq"] < before
    assert not "".join(record["text"] for record in records[1 : gap["seq"] - 1])
    assert shown.endswith("x\nfull\nend\n")


def test_a_fenced_attempt_stops_everything_and_leaves(attempt, agent):
    attempt.cell("import os, time\nprint(os.getpid())\nwhile True:\n    time.sleep(0.05)\n    print('.')")
    agent.wait(lambda: agent.text())
    pid = int(agent.text().split()[0])
    agent.fence = True
    attempt.finish()
    assert processes.start_time(pid) is None
    assert agent.end is None


def test_a_forgotten_attempt_stops_everything_and_leaves(attempt, agent):
    attempt.command("sh", "-c", "echo up; sleep 1000")
    agent.wait_for_text("up")
    agent.want("forget")
    attempt.finish()
    assert agent.end is None


def test_a_second_supervisor_in_one_directory_runs_nothing(attempt, agent):
    attempt.command("sh", "-c", "echo up; sleep 1000")
    agent.wait_for_text("up")
    first = attempt.process
    try:
        attempt.command("echo", "twice")
        assert attempt.process.wait(20) == 3
    finally:
        first.kill()
        first.wait()
    assert agent.text() == "up\n"


def _old_python() -> pathlib.Path | None:
    found = sorted(pathlib.Path(sys.base_prefix).parent.glob("3.8.*/bin/python3.8"))
    return found[0] if found else None


@pytest.mark.skipif(_old_python() is None, reason="no Python 3.8 beside this Python; `pyenv install 3.8` provides it")
def test_python_3_8_runs_cells(attempt, agent):
    packer = Packer({}, limit=2**20)
    packer.add("a", [1])
    old = {"python": str(_old_python()), "encoding": "json"}
    attempt.cell("print('old')\na.append(2)\n1 + 1", values=agent.store(packer), out=["a"], **old)
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types() == ["stream", "result", "values", "exit"]
    assert agent.values(attempt.folder) == {"a": [1, 2], "_": 2}
