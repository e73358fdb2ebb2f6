"""What the command line understands, suggests and refuses; nothing here needs a platform."""

from __future__ import annotations

import io
import itertools
import shlex
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.cli import attending, run
from jupyter_gpu_platform.cli import main as program
from jupyter_gpu_platform.cli.tables import table
from jupyter_gpu_platform.client.options import job_options
from jupyter_gpu_platform.client.terminal import Terminal
from jupyter_gpu_platform.model import units
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, Phase, Reason

JOB = Job(id="j1", spec=JobSpec(source=Command(argv=("x",))), owner="a", project="d", organisation="d", created=0.0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GiB", 16 * 2**30), ("16G", 16 * 2**30), ("16gb", 16 * 10**9), ("1.5 MiB", 1572864), ("512", 512)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "16GX", "-1G", "G", "1e3", "1G2"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="not a size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("2h30m", 9000), ("2h 30min", 9000), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "h", "2x", "2h!", "-5m", "2h3"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="not a duration"):
        units.parse_duration(text)


def test_durations_and_sizes_are_written_in_words() -> None:
    assert [units.format_duration(seconds) for seconds in (0.34, 45, 9000, 90061, 7200)] == [
        "0.3s", "45s", "2h 30m", "1d 1h", "2h",
    ]  # fmt: skip
    assert [units.format_size(size) for size in (0, 1536, 16 * 2**30, 2**41)] == ["0 B", "1.5 KiB", "16 GiB", "2 TiB"]


def test_a_command_begins_where_the_options_end() -> None:
    args = run._arguments(["--gpus", "2", "--env", "A=b=c", "python", "train.py", "--gpus", "9", "--", "x"])
    assert job_options(args) == {"gpus": 2, "env": {"A": "b=c"}}
    assert args.command == ["python", "train.py", "--gpus", "9", "--", "x"]
    assert run._arguments(["--", "ls", "--", "-l"]).command == ["ls", "--", "-l"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rnu", "Did you mean run?"),
        ("ls --phse queued", "--phase"),
        ("run --gups 1 -- python x", "--gpus"),
        ("run --memory 16GX -- x", "'16GX' is not a size"),
        ("run --gpus -1 -- x", "-1 is less than 0"),
        ("run --max-run-time never -- x", "'never' is not a duration"),
        ("run --label nothing -- x", "not of the form key=value"),
        ("run --env NO_SUCH_VARIABLE_HERE -- x", "is not set here"),
        ("run", "it needs a command"),
    ],
)
def test_a_wrong_line_says_what_was_meant(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = program.main(line.split())
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert not shown.out


def test_the_list_of_commands_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in program.COMMANDS)


@pytest.mark.parametrize("name", sorted(set(program.COMMANDS) - {"control"}))
def test_each_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        program.main([name, "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown or name == "completion"
    _, _, taught = shown.partition("\nexamples:\n")
    assert f" {name}" in taught
    assert "\nexit codes: " in taught


def _examples() -> Iterator[tuple[str, list[str]]]:
    for name in sorted(set(program.COMMANDS) - {"control", "completion"}):
        epilog = program.command(name).parser().epilog or ""
        for line in epilog.partition("\n\n")[0].splitlines()[1:]:
            tokens = shlex.shlex(line, posix=True, punctuation_chars=True)
            tokens.wordchars += "…$:"
            words = list(itertools.takewhile(lambda word: not set(word) & set("|&()>"), tokens))
            yield name, words[words.index(name) + 1 :]


@pytest.mark.parametrize(("name", "line"), list(_examples()), ids=str)
def test_the_examples_of_help_are_understood(name: str, line: list[str]) -> None:
    program.command(name).parser().parse_args(line)


def test_records_go_to_the_stream_they_came_from() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    for record in (
        {"type": "stream", "name": "stdout", "text": "50%\r", "attempt": 1},
        {"type": "display", "data": {"text/plain": "<Figure>", "image/png": "…"}, "attempt": 1},
        {"type": "stream", "name": "stderr", "text": "oh\n", "attempt": 1},
        {"type": "error", "ename": "E", "evalue": "v", "traceback": ["Traceback", "E: v"], "attempt": 1},
        {"type": "exit", "exit_code": 1, "attempt": 1},
        {"type": "result", "data": {"image/png": "…"}, "attempt": 2},
    ):
        terminal.show(record)
    assert out.getvalue() == "50%\r\n<Figure> [image/png]\n[image/png]\n"
    assert err.getvalue() == "oh\nTraceback\nE: v\n[attempt 2]\n"


def test_a_table_is_aligned_and_steers_no_terminal() -> None:
    assert table(("A", "B"), [("long", "x\x1b[2J\ny"), ("s", "z")]) == "A     B\nlong  x [2J y\ns     z"


def shown(*records: dict) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    for record in records:
        terminal.show({"attempt": 1} | record)
    return out.getvalue(), err.getvalue()


def test_html_alone_is_a_note() -> None:
    out, _ = shown({"type": "display", "data": {"text/html": "<b>x</b>" * 1000}})
    assert out == "[HTML of 7.81 KiB, which a notebook shows]\n"


def test_progress_keeps_its_carriage_returns_and_is_not_overwritten_by_what_follows() -> None:
    bars = [{"type": "stream", "name": "stderr", "text": f"\r{part}%"} for part in (10, 60, 100)]
    out, err = shown(*bars, {"type": "result", "data": {"text/plain": "1"}}, {"type": "gap", "message": "lost"})
    assert err == "\r10%\r60%\r100%[output is missing here: lost]\n"
    assert out == "\n1\n"


def test_messages_and_prompts_steer_no_terminal_and_output_keeps_its_colours() -> None:
    red = "\x1b[31mred\x1b[0m\n"
    out, err = shown(
        {"type": "stream", "name": "stdout", "text": red},
        {"type": "gap", "message": "\x1b]0;owned\x07"},
        {"type": "input", "prompt": "\x1b[2JName? ", "password": False, "request": 1},
        {"type": "display", "data": {"x/\x1b[2J": ""}},
    )
    assert out.startswith(red)
    assert "\x1b" not in err + out.removeprefix(red)
    assert "Name? " in err


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"phase": Phase.SUCCEEDED, "exit_code": 0}, 0),
        ({"phase": Phase.FAILED, "exit_code": 3}, 3),
        ({"phase": Phase.FAILED, "exit_code": -9}, 137),
        ({"phase": Phase.FAILED, "reason": Reason(code="signal", message="", details={"signal": 15})}, 143),
        ({"phase": Phase.FAILED, "exit_code": 0}, 1),
        ({"phase": Phase.FAILED}, 1),
        ({"phase": Phase.CANCELLED}, 130),
    ],
)
def test_the_exit_code_is_the_command_s(changes: dict, code: int) -> None:
    assert attending.exit_code(replace(JOB, **changes)) == code
