"""What goes along with a cell and comes back, scripts and commands, and what is refused before it queues."""

from __future__ import annotations

import sys

import pytest

from jupyter_gpu_platform.model.jobs import Command, Phase, Reason, Script
from jupyter_gpu_platform.notebook.replay import FarResult
from jupyter_gpu_platform.runner.values import Packer, Unpacked


async def succeed(job):
    job.run()
    job.end()


@pytest.fixture(autouse=True)
def _quick(control):
    control.script = succeed


def error(shown):
    return "\n".join(shown.contents("error")[0]["traceback"])


def keep(control, job, **values):
    """Let *job* leave *values*; ``_`` is its result."""
    packer = Packer({}, limit=2**20)
    entries = [
        packer.add("result" if name == "_" else name, value, "result" if name == "_" else "out")
        for name, value in values.items()
    ]
    content = b"".join(bytes(chunk) for chunk in packer.chunks())
    control.objects[packer.digest()] = content
    found = {"digest": packer.digest(), "size": len(content)}
    job.emit("values", object=found, encoding="pickle", entries=entries, failed=[])


def test_the_names_of_a_cell_go_along_uploaded_once(kernel, control, tmp_path):
    kernel.run("lr, unused = 0.5, 7\ndef step(x):\n    return x * lr")
    kernel.run("%%gpu_run\nstep(2)")
    kernel.run("%%gpu_run\nstep(2)  # again")
    ref, again = (job.job.spec.source.values for job in control.jobs)
    assert ref == again
    assert list(control.objects) == [ref.digest]
    (tmp_path / "object").write_bytes(control.objects[ref.digest])
    there = {}
    there |= Unpacked(tmp_path / "object", there).load()
    assert {"lr", "step"} <= there.keys()
    assert "unused" not in there
    assert there["step"](2) == 1.0


def test_in_says_which_names_go_and_none_is_none(kernel, control):
    kernel.run("lr = 0.5")
    kernel.run("%%gpu_run --in none\nlr")
    assert control.jobs[-1].job.spec.source.values is None
    assert "there is no `l`" in error(kernel.run("%%gpu_run --in l\nlr"))


def test_a_name_that_can_not_be_sent_is_told_before_anything_is(kernel, control):
    kernel.run("import threading; lock = threading.Lock()")
    shown = kernel.run("%%gpu_run\nlock.acquire()")
    assert shown.reply["ename"] == "NotPicklable"
    assert "`lock`" in error(shown)
    assert control.jobs == []


def test_what_is_too_large_is_named_with_its_size_and_the_limit(kernel, control):
    kernel.run("big, small = bytes(3 * 2**20), 1")
    shown = kernel.run("%%gpu_run --capture-limit 1MiB\nlen(big) + small")
    assert shown.reply["ename"] == "CaptureTooLarge"
    assert "`big`" in error(shown)
    assert "1 MiB" in error(shown)
    assert control.jobs == []


def test_names_and_the_last_result_come_back(kernel, control):
    async def script(job):
        job.run()
        job.emit("result", data={"text/plain": "[1, 2]"}, metadata={}, execution_count=1)
        keep(control, job, model={"w": 1.5}, _=[1, 2])
        job.end()

    control.script = script
    shown = kernel.run("%%gpu_run --out model\nmodel = {'w': 1.5}\n[1, 2]")
    assert control.jobs[-1].job.spec.source.out == ("model",)
    assert shown.contents("execute_result")[0]["data"] == {"text/plain": "[1, 2]"}
    count = shown.reply["execution_count"]
    assert kernel.run(f"print(model, _ + [3], Out[{count}] is _{count}, type(_).__name__)").text() == (
        "{'w': 1.5} [1, 2, 3] True list\n"
    )


def test_a_result_that_did_not_come_is_shown_by_its_picture(kernel, control):
    async def script(job):
        job.run()
        job.emit("result", data={"text/plain": "huge"}, metadata={}, execution_count=1)
        job.end()

    control.script = script
    kernel.run("%%gpu_run\nx")
    assert kernel.run("print(type(_).__name__, _)").text() == f"{FarResult.__name__} huge\n"


def test_names_that_did_not_come_back_are_told_apart(kernel, control):
    async def script(job):
        job.run()
        failed = [{"name": "a", "code": "not_assigned", "message": ""}, {"name": "b", "code": "deleted", "message": ""}]
        job.emit("values", object=None, encoding="pickle", entries=[], failed=failed)
        job.end()

    control.script = script
    said = kernel.run("%%gpu_run --out a,b\nx").text("stderr")
    assert "`a` was not brought back: the cell never assigned it" in said
    assert "`b` was not brought back: the cell deleted it" in said


def test_what_a_failed_cell_left_comes_back_too(kernel, control):
    async def script(job):
        job.run()
        job.emit("error", ename="ValueError", evalue="late", traceback=["far ValueError"])
        keep(control, job, epoch=3)
        job.end(Phase.FAILED, Reason(code="error", message="ValueError: late"), 1)

    control.script = script
    shown = kernel.run("%%gpu_run --out epoch\nepoch = 3\nraise ValueError('late')")
    assert shown.reply["ename"] == "ValueError"
    assert kernel.run("print(epoch)").text() == "3\n"


def test_a_name_missing_there_that_exists_here_is_noted(kernel, control):
    async def script(job):
        job.run()
        job.emit("error", ename="NameError", evalue="name 'hidden_one' is not defined", traceback=["far NameError"])
        job.end(Phase.FAILED, Reason(code="error", message="NameError"), 1)

    control.script = script
    kernel.run("hidden_one = 1")
    shown = kernel.run("%%gpu_run --in none\nhidden_one")
    assert shown.contents("error")[0]["traceback"][0] == "far NameError"
    assert "`hidden_one` exists in this notebook but did not go along" in error(shown)
    kernel.run("del hidden_one")
    assert error(kernel.run("%%gpu_run --in none\nhidden_one")) == "far NameError"


def test_a_script_runs_with_its_arguments(kernel, control, tmp_path):
    (tmp_path / "train.py").write_text("")
    kernel.run(f"epochs = 3; import os; before = os.getcwd(); os.chdir({str(tmp_path)!r})")
    try:
        kernel.run("%gpu_run --name t train.py --epochs {epochs} 'a b'")
        shown = kernel.run("%gpu_run tran.py")
    finally:
        kernel.run("os.chdir(before)")
    (job,) = control.jobs
    assert job.job.spec.source == Script(path="train.py", args=("--epochs", "3", "a b"))
    assert (job.job.spec.name, job.job.spec.environment.workdir) == ("t", str(tmp_path))
    assert "Did you mean train.py?" in error(shown)


def test_a_command_stands_behind_two_dashes(kernel, control):
    kernel.run("%gpu_run -- nvidia-smi --list-gpus")
    assert control.jobs[-1].job.spec.source == Command(argv=("nvidia-smi", "--list-gpus"))
    assert "%gpu_run -- python x.py" in error(kernel.run("%gpu_run python x.py"))
    assert "nothing to run" in error(kernel.run("%gpu_run --gpus 1"))
    assert "are a cell's" in error(kernel.run("%gpu_run --out a -- ls"))


@pytest.mark.parametrize(("line", "said"), [
    ("--gpus 1 --gpu-model A100", "There are: NVIDIA H100 SXM (on lab)"),
    ("--gpus 1 --gpu-model h200 --cluster lab", "There are: NVIDIA H100 SXM"),
    ("--gpus 1 --gpu-model H100 --cluster local", "no GPU of model 'H100' on cluster local"),
    ("--cluster lba", "Did you mean lab"),
    ("--gpus 1 --cluster local", "it could never run: local: no driver"),
    ("--gpus 3", "lab has 2 of the 3 GPUs asked for"),
])  # fmt: skip
def test_what_no_cluster_has_is_refused_before_it_queues(kernel, control, line, said):
    assert said in error(kernel.run(f"%%gpu_run {line}\nx"))
    assert control.jobs == []


def test_a_cluster_that_has_not_said_what_it_has_may_have_it(kernel, control):
    control.clusters[:] = [{"name": "new", "state": "new"}]
    kernel.run("%%gpu_run --gpus 1 --gpu-model A100\nx")
    assert len(control.jobs) == 1


def test_a_model_is_asked_for_by_part_of_its_name(kernel, control):
    kernel.run("%%gpu_run --gpus 1 --gpu-model h100\nx")
    assert len(control.jobs) == 1


def test_another_python_is_refused_before_it_queues(kernel, control, tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3 8\n")
    other.chmod(0o755)
    kernel.run("def double(x):\n    return 2 * x")
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    said = error(kernel.run(f"%%gpu_run --python {other}\ndouble(1)"))
    assert f"has Python 3.8, this kernel {here}" in said
    assert "--source" in said
    assert f"has Python 3.8, this kernel {here}" in error(kernel.run("%%gpu_run --image base:python-3.8\ndouble(1)"))
    assert "is no Python that runs here" in error(kernel.run(f"%%gpu_run --python {tmp_path}/none\ndouble(1)"))
    assert control.jobs == []
    kernel.run(f"%%gpu_run --python {other} --in none\nprint(1)")
    assert control.jobs[-1].job.spec.environment.python == str(other)


def test_a_dry_run_says_what_would_go_where_and_submits_nothing(kernel, control):
    kernel.run("data = list(range(1000))")
    shown = kernel.run("%%gpu_run --dry-run --gpus 1 --env SECRET=hush --out best\nbest = max(data) + nowhere")
    text = shown.contents("execute_result")[0]["data"]["text/plain"]
    assert "data: list" in text
    assert "cluster lab     fits" in text
    assert "doesn't fit: local: no driver" in text
    assert "SECRET" in text
    assert "hush" not in text
    assert "nowhere" in text
    assert control.jobs == []
    assert control.objects == {}


def test_presets_and_defaults_of_the_notebook(kernel, control):
    try:
        kernel.run("%config GpuMagics.presets = {'big': '--gpus 2 --name big'}")
        assert (
            "gpus"
            in kernel.run("%gpu config gpus=1 max_run_time=2h").contents("execute_result")[0]["data"]["text/plain"]
        )
        kernel.run("%%gpu_run\nx")
        kernel.run("%%gpu_run --preset big\nx")
    finally:
        kernel.run("%gpu config gpus= max_run_time=")
    first, second = (job.job.spec for job in control.jobs)
    assert (first.resources.gpus, first.limits.max_run_seconds) == (1, 7200)
    assert (second.resources.gpus, second.name, second.limits.max_run_seconds) == (2, "big", 7200)
    kernel.run("%%gpu_run\nx")
    assert control.jobs[-1].job.spec.resources.gpus == 0


@pytest.mark.parametrize(
    "cell", ["%%gpu_run\n%%time\nx = 1", "%%time\n%%gpu_run\nx = 1", "%%gpu_run\n%matplotlib inline"]
)
def test_other_magics_above_and_below(kernel, control, cell):
    assert kernel.run(cell).reply["status"] == "ok"
    assert len(control.jobs) == 1


def test_the_magic_twice_is_refused(kernel, control):
    assert "stands under" in error(kernel.run("%%gpu_run\n%%gpu_run --gpus 1\nx"))
    assert control.jobs == []


@pytest.mark.parametrize(("line", "cluster", "here"), [
    ("", "local", True),
    ("--gpus 1", None, False),
    ("--cluster local", "local", True),
    ("--cluster lab --gpus 1", "lab", False),
    ("--image python:3.12 --in none", None, False),
])  # fmt: skip
def test_only_what_runs_on_this_machine_gets_its_python_and_directory(kernel, control, line, cluster, here):
    kernel.run(f"%%gpu_run {line}\n1")
    spec = control.jobs[-1].job.spec
    assert spec.target.cluster == cluster
    assert (spec.environment.python is not None, spec.environment.workdir is not None) == (here, here)
