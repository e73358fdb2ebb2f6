"""The magics' lines, defaults and presets; nothing here needs a kernel."""

from __future__ import annotations

import pytest
from traitlets import TraitError

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.notebook import options
from jupyter_gpu_platform.notebook.config import GpuMagics


@pytest.mark.parametrize(("line", "said"), [
    ("--gpu 1", "Did you mean --gpus"),
    ("--gpsu=1", "Did you mean --gpus"),
    ("--detatch", "Did you mean --detach"),
    ("--GPU-MODEL A100", "Did you mean --gpu-model"),
    ("print(1)", "below the line"),
    ("--zzz", "shows all options"),
    ("--name 'open", "Close the quotation"),
    ("--gpus two", "--gpus"),
    ("--gpus -1", "less than 0"),
    ("--gpus", "expected one argument"),
    ("--max-run-time soon", "not a duration"),
    ("--max-run-time 0", "not a duration"),
    ("--gpu-memory 16GX", "not a size"),
    ("--on-interrupt stop", "--on-interrupt"),
    ("--env 1A=b", "NAME=VALUE"),
    ("--env NO_SUCH_VARIABLE_HERE", "is not set here"),
    ("--label a", "key=value"),
    ("--in a-b", "not a list of names"),
    ("--preset bgi", "Did you mean big"),
    ("--preset zzz", "There are: big"),
])  # fmt: skip
def test_a_wrong_line_says_what_is_wrong(line, said):
    with pytest.raises(errors.InvalidRequest) as caught:
        options.parse(line, presets={"big": "--gpus 8"})
    assert said in str(caught.value)


def test_every_option_of_a_job_is_read():
    line = options.parse(
        "--gpus 2 --gpu-model 'H100 SXM' --gpu-memory 40GiB --cpus 1.5 --memory 16G --cluster lab --image i --python p"
        " --workdir w --name n --project q --label a=b --label c=d --env A=1 --max-run-time 1h30m --max-queue-time 1d"
        " --max-output 1M --retries 3 --priority -2"
    )
    assert line.job == {
        "gpus": 2, "gpu_model": "H100 SXM", "gpu_memory": 40 * 2**30, "cpus": 1.5, "memory": 16 * 2**30,
        "cluster": "lab", "image": "i", "python": "p", "workdir": "w", "name": "n", "project": "q",
        "labels": {"a": "b", "c": "d"}, "env": {"A": "1"}, "max_run_time": 5400.0, "max_queue_time": 86400.0,
        "max_output": 2**20, "retries": 3, "priority": -2,
    }  # fmt: skip


def test_the_cells_own_options_are_read():
    line = options.parse("--in a,b --out c --source --capture-limit 1GiB --detach --on-interrupt detach --dry-run")
    assert (line.take, line.out, line.source, line.capture_limit) == (("a", "b"), ("c",), True, 2**30)
    assert (line.detach, line.on_interrupt, line.dry_run) == (True, "detach", True)
    assert options.parse("--in none").take == ()
    assert options.parse("").take is None


@pytest.mark.parametrize(("line", "words", "command"), [
    ("train.py", ("train.py",), False),
    ("--gpus 1 train.py --gpus 9 -- x", ("train.py", "--gpus", "9", "--", "x"), False),
    ("--gpus=1 --detach 'my train.py'", ("my train.py",), False),
    ("--gpus 1 -- ls -l -- x", ("ls", "-l", "--", "x"), True),
    ("--priority -1 -- ls", ("ls",), True),
    ("--gpus 1", (), False),
])  # fmt: skip
def test_a_script_or_command_begins_where_the_options_end(line, words, command):
    found = options.parse(line, cell=False)
    assert (found.words, found.command) == (words, command)


def test_a_line_goes_before_its_preset_and_that_before_the_defaults():
    defaults = {"gpus": 1, "cluster": "a", "project": "p", "env": {"A": "1", "B": "1", "C": "1"}}
    presets = {"big": "--gpus 8 --cluster b --env B=2 --env C=2 --out m --detach"}
    line = options.parse("--preset big --gpus 4 --env C=3", defaults=defaults, presets=presets)
    assert line.job == {"gpus": 4, "cluster": "b", "project": "p", "env": {"A": "1", "B": "2", "C": "3"}}
    assert (line.out, line.detach) == (("m",), True)


def test_a_preset_with_a_mistake_is_told_like_a_line_with_one():
    with pytest.raises(errors.InvalidRequest, match="no option --gpu"):
        options.parse("--preset bad", presets={"bad": "--gpu 1"})


def test_the_help_names_every_option():
    text = options.help_text()
    assert all(flag in text for flag in options.flags(options.parser()))


def test_settings_are_read_as_the_line_reads_them():
    settings = GpuMagics(gpus=2, memory="16GiB", max_run_time="2h", env={"A": "1"}, labels="team=vision kind=test")
    found = settings.defaults()
    assert found["labels"] == {"team": "vision", "kind": "test"}
    assert options.parse("", defaults=found).job == {
        "gpus": 2, "memory": 2**34, "max_run_time": 7200.0, "env": {"A": "1"},
        "labels": {"team": "vision", "kind": "test"},
    }  # fmt: skip
    with pytest.raises(TraitError, match="less than 0"):
        GpuMagics(gpus=-1)


def test_a_setting_of_this_notebook_is_taken_back_by_nothing():
    settings = GpuMagics()
    settings.set("gpu-model", "A100")
    settings.set("capture_limit", "1GiB")
    settings.set("completion_ms", "100")
    assert (settings.gpu_model, settings.capture_limit, settings.completion_ms) == ("A100", 2**30, 100)
    settings.set("gpu_model", "")
    settings.set("capture_limit", "")
    assert (settings.gpu_model, settings.capture_limit) == (None, 512 * 2**20)


@pytest.mark.parametrize(("name", "text", "said"), [
    ("gpu", "1", "Did you mean gpus"),
    ("gpus", "many", "not a whole number"),
    ("on_interrupt", "stop", "What the stop button does"),
    ("completion_ms", "soon", "Milliseconds"),
    ("presets", "x", "%config GpuMagics.presets"),
])  # fmt: skip
def test_a_wrong_setting_says_what_is_wrong(name, text, said):
    with pytest.raises(errors.InvalidRequest) as caught:
        GpuMagics().set(name, text)
    assert said in str(caught.value)


def test_each_setting_says_what_it_is():
    for name, _, meaning in GpuMagics().rows():
        assert meaning, name
