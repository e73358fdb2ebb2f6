"""``%gpu``: its verbs, their errors, their tables; and Tab behind the magics."""

from __future__ import annotations

import pytest

from jupyter_gpu_platform.model.jobs import Phase, Reason


async def chatty(job):
    job.run()
    job.emit("stream", name="stdout", text="one\ntwo\nthree\n")
    await job.until(lambda: job.cancels)
    job.end(Phase.CANCELLED, Reason(code="cancelled", message="cancelled by ada"), None)


@pytest.fixture
def job(kernel, control):
    control.script = chatty
    kernel.run("%%gpu_run --detach --gpus 1 --name chat\nprint('one')\nprint('two')")
    (found,) = control.jobs
    yield found
    control.call(lambda: setattr(found, "cancels", 1) or found.touch())


def plain(shown):
    return shown.contents("execute_result")[0]["data"]["text/plain"]


def error(shown):
    return "\n".join(shown.contents("error")[0]["traceback"])


def test_jobs_are_a_table(kernel, job):
    shown = kernel.run("%gpu jobs")
    assert job.job.id in plain(shown)
    assert "chat" in plain(shown)
    assert "<table" in shown.contents("execute_result")[0]["data"]["text/html"]
    assert kernel.run("_[0].id").contents("execute_result")[0]["data"]["text/plain"] == repr(job.job.id)


def test_jobs_that_have_ended_are_listed_when_asked_for(kernel, job):
    kernel.run("%gpu cancel")
    assert job.job.id not in plain(kernel.run("%gpu jobs"))
    assert job.job.id in plain(kernel.run("%gpu jobs --all"))


def test_show_tells_all_about_a_job(kernel, job):
    text = plain(kernel.run(f"%gpu show {job.job.id}"))
    assert "print('one') … (2 lines)" in text
    assert "ada (project default)" in text


def test_logs_and_their_tail(kernel, job):
    assert kernel.run(f"%gpu logs {job.job.id}").text() == "one\ntwo\nthree\n"
    assert kernel.run(f"%gpu logs {job.job.id} --tail 2").text() == "two\nthree\n"
    assert kernel.run("%gpu logs --tail 0").text() == ""
    assert "takes a number" in error(kernel.run("%gpu logs --tail x"))


def test_a_job_is_named_by_the_beginning_of_its_id_and_the_newest_by_nothing(kernel, job):
    assert kernel.run(f"%gpu output {job.job.id[:-3]}").text() == "one\ntwo\nthree\n"
    assert kernel.run("%gpu output").text() == "one\ntwo\nthree\n"


def test_a_job_id_with_a_mistake_gets_the_nearest(kernel, job):
    wrong = job.job.id[:-1] + ("y" if job.job.id[-1] == "z" else "z")
    assert f"Did you mean {job.job.id}" in error(kernel.run(f"%gpu show {wrong}"))


def test_the_platform_and_its_gpus(kernel, control):
    text = plain(kernel.run("%gpu status"))
    assert "ada (admin)" in text
    assert "2 × NVIDIA H100 SXM" in text
    assert "no driver" in text


@pytest.mark.parametrize(("line", "said"), [
    ("atach j1", "Did you mean %gpu attach?"),
    ("zzz", "There are: jobs, show"),
    ("jobs --al", "Did you mean --all?"),
    ("show a b", "Write: %gpu show ID"),
    ("config gpu", "Did you mean gpus"),
    ("config gpu=1", "Did you mean gpus"),
    ("config gpus=x", "not a whole number"),
    ("up now", "does not understand 'now'"),
    ("logs 'x", "Close the quotation"),
])  # fmt: skip
def test_a_wrong_line_says_what_is_right(kernel, line, said):
    assert said in error(kernel.run(f"%gpu {line}"))


def test_settings_are_shown_all_or_some(kernel):
    assert "capture_limit" in plain(kernel.run("%gpu config"))
    text = plain(kernel.run("%gpu config eager-limit"))
    assert "64 MiB" in text
    assert "capture_limit" not in text


def test_without_words_it_helps(kernel):
    assert "Examples" in kernel.run("%gpu").text()
    assert "Examples" in kernel.run("%gpu?").reply["payload"][0]["data"]["text/plain"]


def test_a_detached_job_whose_cell_has_a_value_gives_it_later(kernel, control, job):
    assert kernel.run("%gpu cancel").text().startswith(f"Job {job.job.id}")
    assert "was cancelled" in error(kernel.run("%gpu result"))


# --- Tab ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "offered"), [
    ("%%gpu_run --gpu", ["--gpus", "--gpu-model", "--gpu-memory"]),
    ("%gpu_run --det", ["--detach"]),
    ("%%gpu_run --cluster l", ["lab", "local"]),
    ("%%gpu_run --gpus 1 --gpu-model ", ["'NVIDIA H100 SXM'"]),
    ("%%gpu_run --on-interrupt ", ["cancel", "detach"]),
    ("%gpu a", ["attach"]),
    ("%gpu config gpu_m", ["gpu_memory=", "gpu_model="]),
    ("%gpu logs --t", ["--tail"]),
])  # fmt: skip
def test_tab_offers_what_there_is(kernel, control, code, offered):
    assert sorted(kernel.complete(code)) == sorted(offered)


def test_tab_offers_jobs_names_presets_and_scripts(kernel, job, tmp_path):
    (tmp_path / "train.py").write_text("")
    kernel.run(f"import os; before = os.getcwd(); os.chdir({str(tmp_path)!r}); my_data = 1")
    try:
        kernel.run("%config GpuMagics.presets = {'big': '--gpus 2'}")
        assert job.job.id in kernel.complete("%gpu attach j")
        assert kernel.complete("%%gpu_run --in my_d") == ["my_data"]
        assert kernel.complete("%%gpu_run --preset b") == ["big"]
        assert kernel.complete("%gpu_run --gpus 1 tr") == ["train.py"]
    finally:
        kernel.run("os.chdir(before)")


def test_tab_in_the_code_below_is_the_shells(kernel):
    assert "print" in kernel.complete("%%gpu_run --gpus 1\npri")


def test_tab_waits_for_no_service(kernel, control):
    control.call(control.pause)
    try:
        assert not [offer for offer in kernel.complete("%gpu cancel ") if offer.startswith("j0")]
    finally:
        control.call(control.resume)
