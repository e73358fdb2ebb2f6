"""Commands and lists of jobs from Python, other services, and where there is no IPython."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jupyter_gpu_platform as gpu
from jupyter_gpu_platform.client import local


def test_a_command_shows_its_output_and_returns_its_job(environ, capsys):
    job = gpu.run("echo hello", name="greeting", labels={"kind": "test"})
    assert capsys.readouterr().out == "hello\n"
    assert (job.name, job.phase, job.result(), job.logs()) == ("greeting", "succeeded", None, "hello\n")
    (found,) = gpu.jobs(name="greeting")
    assert found.id == job.id


def test_a_command_that_fails_raises_unless_nobody_waits(environ):
    with pytest.raises(gpu.JobFailed, match="exit code 1"):
        gpu.run(["false"])
    job = gpu.run("false", wait=False)
    assert job.wait(60).exit_code == 1
    assert isinstance(job.exception(), gpu.JobFailed)


@pytest.mark.parametrize("command", ["", [], "cat < file", 'echo "open', print])
def test_what_is_no_command_is_refused(environ, command):
    with pytest.raises(gpu.errors.InvalidRequest) as caught:
        gpu.run(command)
    assert caught.value.hint


def test_a_job_is_found_again_retried_and_deleted(environ):
    job = gpu.attach(gpu.run("echo once more").id)
    assert job.retry().phase != "succeeded"
    assert job.wait(60).attempt == 2
    job.delete()
    with pytest.raises(gpu.errors.NotFound):
        job.status()
    with pytest.raises(gpu.errors.NotFound):
        gpu.attach(job.id)


def test_who_waits_for_a_job_that_is_deleted_hears_of_it(environ):
    job = gpu.run("sleep 600", wait=False)
    with pytest.raises(TimeoutError):
        job.wait(timeout=0.01)
    waiting = job.ending()
    job.cancel()
    waiting.result(60)
    job.delete()
    with pytest.raises(gpu.errors.NotFound):
        job.wait(60)


def test_a_list_of_jobs_is_a_table(environ):
    job = gpu.run("true", name="<b>&")
    listed = gpu.jobs(limit=1)
    head, row = repr(listed).splitlines()
    assert head.split()[:3] == ["ID", "NAME", "PHASE"]
    assert row.startswith(job.id)
    assert "<td" in listed._repr_html_()
    assert "&lt;b&gt;&amp;" in listed._repr_html_()
    assert repr(gpu.jobs(name="there is no such job")) == "no jobs"
    assert "succeeded" in repr(job)


def test_another_service_is_current_within_its_block(environ, tmp_path: Path):
    elsewhere = {**environ, "JUPYTER_RUNTIME_DIR": str(tmp_path / "r"), "JUPYTER_GPU_STATE_DIR": str(tmp_path / "s")}

    def there(code: str) -> str:
        text = f"from jupyter_gpu_platform.client import local\n{code}"
        command = [sys.executable, "-c", text]
        return subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=True).stdout

    url, token = there("found = local.ensure(); print(found.url, found.token)").split()
    try:
        with gpu.connect(url, token) as connection:
            assert connection.client().url == url
            job = gpu.run("echo there", wait=False)
            with gpu.connect():
                assert job.id not in [other.id for other in gpu.jobs()]
            assert [other.id for other in gpu.jobs()] == [job.id]
        with pytest.raises(gpu.errors.NotFound):
            gpu.attach(job.id)
        job.result(60)
        assert job.logs() == "there\n"  # it stays with the service that it was made by
        with pytest.raises(gpu.errors.Unauthenticated):
            gpu.connect(url, "no-such-token")
    finally:
        there("local.stop()")
    found = local.find()
    assert found is not None
    assert found.url != url


def test_everything_works_without_ipython(program):
    text = """
import sys
for name in ("IPython", "traitlets", "ipykernel", "comm", "tqdm"):
    sys.modules[name] = None
@gpu.remote
def square(x):
    print("squaring")
    return x * x
print(square(3), list(square.map([1, 2])), gpu.run("echo hello").phase)
print(type(gpu.jobs(limit=1)).__name__, gpu.attach(gpu.jobs(limit=1)[0].id).logs())
try:
    square("a")
except TypeError as error:
    print(error)
gpu.jobs(limit=1)[0].output()
"""
    shown = program(text)
    assert "squaring\n9 [1, 4] succeeded\n" in shown.replace("hello\n", "", 1)
    assert "can't multiply sequence by non-int" in shown


def test_each_public_name_is_there():
    for name in gpu.__all__:
        assert getattr(gpu, name) is not None
    assert set(gpu.__all__) <= set(dir(gpu))
    with pytest.raises(AttributeError):
        gpu.there_is_no_such_name  # noqa: B018
