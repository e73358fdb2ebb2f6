"""The commands, as programs of their own, against a real platform of this machine."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import connect
from jupyter_gpu_platform.client.specifying import specify
from jupyter_gpu_platform.model.jobs import Cell, Frontend, Phase

from .conftest import Gpu


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


def test_run_refuses_what_this_machine_can_never_give(gpu: Gpu) -> None:
    _, err = gpu("run", "--gpus", "3", "--", "true", code=1)
    assert "it could never run" in err
    assert "Ask for less" in err


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
    with gpu.at_terminal("run", "--", "sh", "-c", "echo begun; exec sleep 600") as terminal:
        terminal.expect("begun")
        terminal.type("\x03")
        terminal.expect("(Ctrl-C cancels) ")
        terminal.type(f"{key}\n")
        assert terminal.ended() == 130
    with connect() as client:
        job = next(client.iter_jobs())
        assert job.phase is phase
        if not job.phase.ended:
            client.cancel(job.id)


def test_after_ctrl_c_one_can_go_on_and_twice_cancels(gpu: Gpu) -> None:
    with gpu.at_terminal("run", "--", "sh", "-c", "echo begun; exec sleep 600") as terminal:
        terminal.expect("begun")
        terminal.type("\x03")
        terminal.expect("(Ctrl-C cancels) ")
        terminal.type("\n")
        terminal.expect("Going on.")
        terminal.type("\x03")
        terminal.expect("(Ctrl-C cancels) ")
        terminal.type("\x03")
        terminal.expect("Cancelling")
        assert terminal.ended() == 130


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


def test_attach_shows_all_and_gives_the_job_s_exit_code(gpu: Gpu) -> None:
    job_id = gpu("run", "-d", "--", "sh", "-c", "echo a; echo b >&2; exit 7")[0].strip()
    for _ in range(2):
        out, err = gpu("attach", job_id, code=7)
        assert out == "a\n"
        assert "b\n" in err
    lines = [json.loads(line) for line in gpu("attach", "--json", job_id, code=7)[0].splitlines()]
    assert [line["type"] for line in lines][-2:] == ["exit", "job"]


def test_ctrl_c_detaches_who_only_attached(gpu: Gpu) -> None:
    job_id = gpu("run", "-d", "--", "sh", "-c", "echo begun; exec sleep 600")[0].strip()
    with gpu.start("attach", job_id) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=30) == 130
    assert json.loads(gpu("show", "--json", job_id)[0])["job"]["phase"] == "running"
    _, err = gpu("rm", "--yes", job_id, code=1)
    assert f"End it first: jupyter gpu cancel {job_id}" in err
    gpu("cancel", job_id)


def test_retry_shows_the_new_attempt_only(gpu: Gpu, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = f"test -e {marker} && echo second && exit 0; touch {marker}; echo first; exit 5"
    lines = gpu("run", "--json", "--", "sh", "-c", script, code=5)[0].splitlines()
    job_id = json.loads(lines[-1])["job"]["id"]
    assert gpu("retry", "--follow", job_id)[0] == "second\n"
    assert gpu("logs", job_id)[0] == "first\nsecond\n"
    assert "is queued again" in gpu("retry", job_id)[0]
    assert gpu("attach", job_id)[0] == "first\nsecond\nsecond\n"


def test_rm_asks_and_deletes_what_has_ended(gpu: Gpu, finished: str) -> None:
    _, err = gpu("rm", finished, code=1)
    assert "Give --yes" in err
    with gpu.at_terminal("rm", finished) as terminal:
        terminal.expect("[y/N] ")
        terminal.type("\n")
        assert terminal.ended() == 1
    with gpu.at_terminal("rm", finished) as terminal:
        terminal.expect("[y/N] ")
        terminal.type("y\n")
        terminal.expect("is deleted")
        assert terminal.ended() == 0
    out, err = gpu("rm", "--yes", "--json", finished, code=1)
    assert json.loads(err)["error"]["code"] == "not_found"
    assert json.loads(out) == {"items": []}


def test_several_are_done_though_one_can_t_be(gpu: Gpu, finished: str) -> None:
    out, err = gpu("rm", "--yes", "j0000000000000000zz", finished, code=1)
    assert f"{finished}  is deleted" in out
    assert "there is no job 'j0000000000000000zz'" in err


def test_ls_filters(gpu: Gpu) -> None:
    ids = {
        name: gpu("run", "-d", "--name", name, "--label", f"kind={name}", "--", "true")[0].strip()
        for name in ("filtered-one", "filtered-two")
    }
    assert gpu("ls", "--all", "--ids", "--name", "filtered")[0].split() == [ids["filtered-two"], ids["filtered-one"]]
    assert gpu("ls", "--all", "--ids", "--label", "kind=filtered-one")[0].split() == [ids["filtered-one"]]
    assert gpu("ls", "--all", "--ids", "--name", "filtered", "--cluster", "elsewhere")[0] == ""
    gpu("attach", ids["filtered-one"])
    assert ids["filtered-one"] in gpu("ls", "--all", "--ids", "--name", "filtered", "--cluster", "local")[0]


def test_ls_watches(gpu: Gpu) -> None:
    with gpu.start("ls", "--watch", "--json", "--all", "--name", "watched") as program:
        assert program.stdout is not None
        assert json.loads(program.stdout.readline()) == {"items": []}
        job_id = gpu("run", "-d", "--name", "watched", "--", "true")[0].strip()
        phase = ""
        while phase != "succeeded":
            (job,) = json.loads(program.stdout.readline())["items"]
            assert job["id"] == job_id
            phase = job["phase"]
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=30) == 130


def test_a_name_steers_no_terminal(gpu: Gpu) -> None:
    job_id = gpu("run", "-d", "--name", "\x1b]0;owned\x07\x1b[2J", "--", "true")[0].strip()
    gpu("attach", job_id)
    shown = [gpu("ls", "--all"), gpu("show", job_id), gpu("events", "--tail", "50"), gpu("events", job_id)]
    assert all("\x1b" not in out + err for out, err in shown)
    assert "owned" in shown[0][0]


def test_logs_since(gpu: Gpu, finished: str) -> None:
    assert gpu("logs", "--since", "1h", finished)[0] == "1\n2\n3\n"
    assert gpu("logs", "--since", "0.001s", finished)[0] == ""
    assert gpu("logs", "--since", "1h", "--tail", "1", finished)[0] == "3\n"
    assert gpu("logs", "--since", "0.001s", "--tail", "1", "-f", finished)[0] == ""


def test_clusters_and_their_gpus(gpu: Gpu) -> None:
    assert "2 × Fake GPU" in gpu("clusters")[0]
    assert gpu("clusters", "local")[0].count("Fake GPU (simulated)  ") == 2
    (cluster,) = json.loads(gpu("clusters", "--json")[0])["items"]
    assert len(cluster["capacity"]["gpus"]) == 2
    _, err = gpu("clusters", "locla", code=1)
    assert "Did you mean local?" in err


def test_events_of_a_job_until_its_end(gpu: Gpu) -> None:
    job_id = gpu("run", "-d", "--", "sh", "-c", "echo begun; exec sleep 600")[0].strip()
    with gpu.start("events", "-f", "--json", job_id) as program:
        assert program.stdout is not None
        codes = []
        while "running" not in codes:
            codes.append(json.loads(program.stdout.readline())["code"])
        gpu("cancel", job_id)
        codes += [json.loads(line)["code"] for line in program.stdout]
        assert program.wait(timeout=30) == 0
    assert codes[0] == "created"
    assert codes[-1] == "cancelled"
    assert len(codes) == len(set(codes))
    assert [line.split()[1] for line in gpu("events", job_id)[0].splitlines()] == codes
    assert len(gpu("events", "-n", "2", job_id)[0].splitlines()) == 2


def test_events_of_all(gpu: Gpu) -> None:
    with gpu.start("events", "-f", "--tail", "0") as program:
        assert program.stdout is not None
        job_id = ""
        while not job_id:
            # Until the follower listens nothing of a job is shown.
            begun = gpu("run", "--json", "--", "true")[0].splitlines()[-1]
            job_id = json.loads(begun)["job"]["id"]
        line = ""
        while not (job_id in line and "succeeded" in line):
            line = program.stdout.readline()
            assert line
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=30) == 130
    assert f"{job_id}  -  succeeded on local" in gpu("events")[0]


def _cell(code: str, *, stdin: bool = False) -> str:
    with connect() as client:
        return client.submit(specify(Cell(code=code, frontend=Frontend(stdin=stdin)), here=True)).id


def test_pictures_become_files_that_are_named(gpu: Gpu) -> None:
    job_id = _cell(
        "import base64\n"
        "from IPython.display import display\n"
        "display({'image/png': base64.b64encode(b'picture').decode(), 'text/plain': '<Figure>'}, raw=True)\n"
        "display({'text/html': '<b>bold</b>'}, raw=True)\n"
    )
    out, _ = gpu("attach", job_id)
    picture = Path(out.splitlines()[0].removeprefix("<Figure> [image/png: ").removesuffix("]"))
    assert picture.read_bytes() == b"picture"
    assert picture.name.startswith(f"{job_id}-")
    assert picture.stat().st_mode & 0o777 == 0o600
    assert f"which a notebook shows: %gpu output {job_id}]" in out
    assert gpu("logs", "--tail", "2", job_id)[0] == out
    picture.unlink()
    gpu("logs", "--json", job_id)
    assert not picture.exists()


def test_who_attaches_answers_what_the_job_asks(gpu: Gpu) -> None:
    job_id = _cell("name = input('Name? ')\nprint(f'hello {name}')\nprint(input('More? '))", stdin=True)
    with gpu.at_terminal("attach", job_id) as terminal:
        terminal.expect("Name? ")
        terminal.type("Ada\n")
        terminal.expect("hello Ada")
        terminal.expect("More? ")
        terminal.type("\x03")
        terminal.expect("(Ctrl-C cancels) ")
        terminal.type("d\n")
        assert terminal.ended() == 130
    # Only what is not answered yet is asked again.
    with gpu.at_terminal("attach", job_id) as terminal:
        assert "Name?" not in terminal.expect("More? ")
        terminal.type("yes\n")
        assert terminal.ended() == 0
        assert "yes" in terminal.shown


def test_a_secret_that_is_asked_for_does_not_show(gpu: Gpu) -> None:
    job_id = _cell("import getpass\nprint(len(getpass.getpass('Token: ')))", stdin=True)
    with gpu.at_terminal("attach", job_id) as terminal:
        terminal.expect("Token: ")
        terminal.type("secret\n")
        assert terminal.ended() == 0
        assert terminal.shown.split() == ["6"]


def test_a_question_of_a_job_that_is_cancelled_keeps_nobody(gpu: Gpu) -> None:
    job_id = _cell("input('Name? ')", stdin=True)
    with gpu.at_terminal("attach", job_id) as terminal:
        terminal.expect("Name? ")
        gpu("cancel", job_id)
        assert terminal.ended() == 130


def test_where_nobody_can_answer_it_is_said(gpu: Gpu) -> None:
    job_id = _cell("print(input('Name? '))", stdin=True)
    with gpu.start("attach", job_id) as program:
        assert program.stderr is not None
        assert "Name?" in program.stderr.readline()
        assert f"at a terminal: jupyter gpu attach {job_id}" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=30)
    gpu("cancel", job_id)
