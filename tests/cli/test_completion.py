"""Completion: what is offered, and that real shells offer it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_gpu_platform import runtime
from jupyter_gpu_platform.cli import completing, completion
from jupyter_gpu_platform.cli.main import COMMANDS

from .conftest import Gpu, Terminal


def offered(line: str) -> list[str]:
    return [one.text for one in completing.candidates(completing.words_of(line))]


def test_commands_are_offered() -> None:
    assert set(COMMANDS) < set(offered("jupyter-gpu "))
    assert offered("jupyter gpu l") == offered("jupyter-gpu l") == ["ls", "logs"]
    assert offered("jupyter-gpu --v") == ["--version"]
    assert offered("jupyter-gpu nothing ") == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("run --gpu-", ["--gpu-model", "--gpu-memory"]),
        ("run --gpus 1 --gpu", ["--gpu-model", "--gpu-memory"]),  # one that was given isn't offered again
        ("run --env A=b --en", ["--env"]),  # but where it may be repeated
        ("run --name --gpu", []),  # it is a name
        ("ls --phase q", ["queued"]),
        ("ls --phase=su", ["--phase=suspended", "--phase=succeeded"]),
        ("ls --all --pr", ["--project"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("completion bash ", []),
        ("run --workdir ", [":dirs"]),
        ("run --workdir=/t", [":dirs"]),
        ("run --python ", [":files"]),
        ("run --gpus 1 ", [":command"]),
        ("run -- --", [":command"]),
        ("run python --gpu", [":files"]),  # the command's own option
        ("run --gpus 1 -- python train.py --gpu", [":files"]),
        ("run --name 'a b' --de", ["--detach"]),
        ("run --name 'a b --de", []),
    ],
)
def test_options_and_their_values_are_offered_where_they_may_stand(line: str, found: list[str]) -> None:
    assert offered(f"jupyter gpu {line}") == found


def test_every_option_is_offered() -> None:
    assert "--max-queue-time" in offered("jupyter-gpu run -")
    assert "--since" in offered("jupyter gpu logs --")


def test_names_are_asked_of_the_platform_that_runs(gpu: Gpu) -> None:
    ended = gpu("run", "--json", "--", "true")[0].splitlines()[-1].partition('"id":"')[2].partition('"')[0]
    open_ = gpu("run", "-d", "--name", "sleeper", "--", "sleep", "600")[0].strip()
    try:
        assert {ended, open_} <= set(offered("jupyter gpu show "))
        assert ended not in offered("jupyter gpu cancel ")
        assert open_ in offered("jupyter gpu cancel j")
        assert open_ not in offered(f"jupyter gpu cancel {open_} ")
        assert open_ not in offered("jupyter gpu rm ")
        assert ended in offered("jupyter gpu rm ")
        assert offered("jupyter gpu run --cluster lo") == ["local"]
        assert offered("jupyter gpu run --cluster=") == ["--cluster=local"]
        assert offered("jupyter gpu clusters ") == ["local"]
        about = {one.text: one.about for one in completing.candidates(["attach", ""])}
        assert about[open_].endswith("sleeper")
        (model,) = offered("jupyter gpu run --gpu-model Fa")
        # The words of the model, so joined that no shell needs quotes, are understood.
        gpu("run", "--gpus", "1", "--gpu-model", model, "--max-queue-time", "30s", "--", "true")
    finally:
        gpu("cancel", open_)


def test_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_GPU_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("JUPYTER_GPU_URL", raising=False)
    assert offered("jupyter gpu show ") == []
    assert runtime.read_runtime_file() is None
    assert not (tmp_path / "state").exists()


def test_a_platform_that_can_t_be_reached_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_GPU_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("JUPYTER_GPU_TOKEN", "t")
    assert offered("jupyter gpu show ") == []


def test_a_platform_that_does_not_answer_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("JUPYTER_GPU_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("JUPYTER_GPU_TOKEN", "t")
        assert offered("jupyter gpu show ") == []


# --- real shells -----------------------------------------------------------------------------------------------

#: how each shell is started without a person's own settings
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}


@pytest.fixture
def shell_environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    bin_ = Path(sys.executable).parent
    home = {"HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "PS1": "> ", "TERM": "dumb", "COLUMNS": "200"}
    return environ | home | {"PATH": f"{bin_}{os.pathsep}{environ['PATH']}"}


def _completed(shell: str, environ: dict[str, str], line: str) -> str:
    """Return what *line* is once the tab key was pressed behind it, in a real shell at a terminal."""
    if shell == "fish":
        return _completed_by_fish(environ, line)
    with Terminal(SHELLS[shell], environ) as terminal:
        terminal.type(f"source <(jupyter-gpu completion {shell}); echo READ''Y\n")
        terminal.expect("READY")
        # The line is not run: it becomes a word of echo, behind a mark that only its output has.
        terminal.type(f"{line}\t\x01echo MA''RK \x05\n")
        terminal.expect("MARK ")
        return terminal.expect("\n").strip()


def _completed_by_fish(environ: dict[str, str], line: str) -> str:
    """Ask fish itself, which tells what it would offer."""
    command = ["fish", "--no-config", "-c", f"{completion.FISH}\ncomplete -C '{line}'"]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, cwd=environ["HOME"]).stdout
    (candidate,) = {shown.partition("\t")[0] for shown in told.splitlines()}
    return f"{line.rpartition(' ')[0]} {candidate}"


LINES = [
    ("jupyter-gpu comp", "jupyter-gpu completion"),
    ("jupyter gpu stat", "jupyter gpu status"),
    ("jupyter gpu run --gpu-mo", "jupyter gpu run --gpu-model"),
    ("jupyter gpu run --gpu-model Fa", "jupyter gpu run --gpu-model Fake-GPU-simulated"),
    ("jupyter gpu run --cluster=lo", "jupyter gpu run --cluster=local"),
    ("jupyter-gpu run --workdir some-d", "jupyter-gpu run --workdir some-dir/"),
    ("jupyter-gpu run -- cat some-f", "jupyter-gpu run -- cat some-file"),
    ("jupyter-gpu run -- sha256s", "jupyter-gpu run -- sha256sum"),
]


# Only shells that are there: which ones a machine has is its own affair; ours has bash.
@pytest.mark.parametrize("shell", ["bash", *(shell for shell in ("zsh", "fish") if shutil.which(shell))])
@pytest.mark.parametrize(("line", "whole"), LINES)
def test_a_shell_completes(
    shell: str, line: str, whole: str, shell_environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some-dir").mkdir()
    (tmp_path / "some-file").touch()
    monkeypatch.chdir(tmp_path)
    # zsh takes the slash back when the cursor leaves the word.
    assert _completed(shell, shell_environ, line).rstrip("/") == whole.rstrip("/")


def test_what_completed_jupyter_before_still_does(shell_environ: dict[str, str]) -> None:
    script = (
        "other() { COMPREPLY=(notebook); }; complete -F other jupyter\n"
        f"{completion.BASH}\n{completion.BASH}\n"  # twice: it doesn't take itself for the one before
        "COMP_WORDS=(jupyter no) COMP_CWORD=1 COMP_LINE='jupyter no' COMP_POINT=10; _jupyter_gpu jupyter no jupyter\n"
        'echo "${COMPREPLY[@]}"'
    )
    told = subprocess.run(["bash", "--norc", "-c", script], env=shell_environ, capture_output=True, text=True)
    assert told.stdout == "notebook\n"
