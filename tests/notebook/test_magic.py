"""The magic's line, its errors, its waiting card, its interrupts, and jobs that are left to run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jupyter_gpu_platform.model.jobs import Phase, Reason
from jupyter_gpu_platform.notebook.handle import MIME
from jupyter_gpu_platform.notebook.interrupting import next_step


async def succeed(job):
    job.run()
    job.emit("stream", name="stdout", text="hello\n")
    job.end()


def test_options_become_the_jobs_spec(kernel, control):
    control.script = succeed
    shown = kernel.run(
        "%%gpu_run --gpus 2 --gpu-model 'H100 SXM' --cluster lab --name 'my run' --max-run-time 1h30m"
        " --env A=1 --env B=x=y\nprint('hello')\n"
    )
    assert shown.text() == "hello\n"
    spec = control.jobs[-1].job.spec
    assert (spec.resources.gpus, spec.resources.gpu_model, spec.target.cluster) == (2, "H100 SXM", "lab")
    assert (spec.name, spec.limits.max_run_seconds) == ("my run", 5400)
    assert spec.env == {"A": "1", "B": "x=y"}
    assert spec.source.frontend.parent_header["msg_id"] == shown.messages[0]["parent_header"]["msg_id"]
    assert spec.source.frontend.kernel_pid > 0
    assert spec.source.code == "print('hello')"


def test_on_this_machine_the_job_gets_the_kernels_python_and_directory(kernel, control, tmp_path):
    control.script = succeed
    kernel.run(f"import os; before = os.getcwd(); os.chdir({str(tmp_path)!r})")
    try:
        kernel.run("%%gpu_run\nx")
    finally:
        kernel.run("os.chdir(before)")
    environment = control.jobs[-1].job.spec.environment
    assert environment.python == sys.executable
    assert environment.workdir == str(tmp_path)


def test_an_empty_cell_is_an_error_without_frames(kernel, control):
    shown = kernel.run("%%gpu_run --gpus 1\n  \n\n")
    assert shown.reply["ename"] == "InvalidRequest"
    (error,) = shown.contents("error")
    text = "\n".join(error["traceback"])
    assert "the cell is empty" in text
    assert "Traceback" not in text
    assert "File" not in text
    assert control.jobs == []


@pytest.mark.parametrize("cell", ["%%gpu_run", "%%gpu_run\n", "%gpu_run", "%gpu_run --help", "%%gpu_run --help\nx"])
def test_a_line_without_anything_to_run_shows_the_help(kernel, control, cell):
    text = kernel.run(cell).text()
    assert "Examples" in text
    assert "--on-interrupt" in text
    assert control.jobs == []


def test_help_has_examples(kernel):
    shown = kernel.run("%%gpu_run?")
    text = shown.reply["payload"][0]["data"]["text/plain"]
    assert "Examples" in text
    assert "--on-interrupt" in text


def test_a_job_that_was_killed_is_one_readable_block(kernel, control):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="begun\n")
        job.end(Phase.FAILED, Reason(code="signal", message="killed by signal 9", details={"signal": 9}), None)

    control.script = script
    shown = kernel.run("%%gpu_run\nx")
    assert shown.text() == "begun\n"
    text = "\n".join(shown.contents("error")[0]["traceback"])
    assert shown.reply["ename"] == "JobFailed"
    assert control.jobs[-1].job.id in text
    assert "killed by signal 9" in text
    assert "code: signal" in text
    assert "hint: " in text
    assert len(text.splitlines()) == 3


def test_a_refusal_of_the_service_is_one_readable_block(kernel):
    shown = kernel.run("%gpu attach jnothing")
    text = "\n".join(shown.contents("error")[0]["traceback"])
    assert shown.reply["ename"] == "NotFound"
    assert text.splitlines()[0].endswith("there is no job 'jnothing'")
    assert "%gpu jobs" in text


def test_a_wrong_verb_of_the_line_magic_says_the_right_one(kernel):
    assert "Did you mean %gpu attach?" in kernel.run("%gpu atach j1").contents("error")[0]["traceback"][-1]


def test_quick_work_shows_no_card(kernel, control):
    control.script = succeed
    shown = kernel.run("%%gpu_run\nx")
    assert [entry["type"] for entry in shown.outputs()] == ["stream"]


def test_a_job_that_waits_says_why_in_one_display_that_settles(kernel, control):
    async def script(job):
        job.set(reason=Reason(code="gpus_busy", message="local: 0 of 1 GPUs free, 1 asked for"))
        await job.until(lambda: job.interrupts)
        job.run()
        job.emit("stream", name="stdout", text="at last\n")
        job.end()

    control.script = script
    cell = kernel.start("%%gpu_run --gpus 1\nx")
    while (first := kernel.message(cell))["msg_type"] != "display_data":
        pass
    assert "queued" in first["content"]["data"]["text/plain"]
    assert "0 of 1 GPUs free" in first["content"]["data"]["text/plain"]
    display_id = first["content"]["transient"]["display_id"]
    control.call(lambda: setattr(control.jobs[-1], "interrupts", 1) or control.jobs[-1].touch())
    rest = kernel.finish(cell)
    assert rest.text() == "at last\n"
    assert rest.contents("display_data") == []
    updates = rest.contents("update_display_data")
    assert {update["transient"]["display_id"] for update in updates} == {display_id}
    assert "first output after" in updates[-1]["data"]["text/plain"]
    assert rest.outputs()[-1]["type"] == "stream"


def test_a_service_that_takes_its_time_with_a_submission_is_told(kernel, control):
    control.script = succeed
    control.call(control.pause)
    try:
        cell = kernel.start("%%gpu_run\nx")
        while (first := kernel.message(cell))["msg_type"] != "display_data":
            pass
    finally:
        control.call(control.resume)
    assert "Handing over" in first["content"]["data"]["text/plain"]
    shown = kernel.finish(cell)
    assert shown.text() == "hello\n"
    (update,) = shown.contents("update_display_data")
    assert "first output after" in update["data"]["text/plain"]
    assert shown.reply["status"] == "ok"


def test_our_requests_are_no_log_lines_of_the_person_and_theirs_are(kernel, control):
    control.script = succeed
    kernel.run("import logging, httpx\nlogging.basicConfig(level='INFO', format='%(name)s', force=True)")
    try:
        assert kernel.run("%%gpu_run\nprint('hello')").outputs() == [
            {"type": "stream", "name": "stdout", "text": "hello\n"}
        ]
        assert kernel.run(f"httpx.get({control.url!r} + '/nothing').status_code").text("stderr") == "httpx\n"
    finally:
        kernel.run("logging.basicConfig(level='WARNING', force=True)")


async def interruptible(job):
    job.run()
    job.emit("stream", name="stdout", text="working\n")
    await job.until(lambda: job.interrupts)
    job.emit("error", ename="KeyboardInterrupt", evalue="", traceback=["far KeyboardInterrupt"])
    job.end(Phase.FAILED, Reason(code="error", message="KeyboardInterrupt"), 1)


def test_the_first_interrupt_reaches_the_far_code_and_stops_run_all(kernel, control):
    control.script = interruptible
    cell = kernel.start("%%gpu_run\nwhile True: pass")
    kernel.until_text(cell, "working")
    kernel.interrupt()
    shown = kernel.finish(cell)
    assert "Interrupting job" in shown.text("stderr")
    assert shown.reply["ename"] == "KeyboardInterrupt"
    assert [content["traceback"] for content in shown.contents("error")] == [["far KeyboardInterrupt"]]
    assert (control.jobs[-1].interrupts, control.jobs[-1].cancels) == (1, 0)


def test_code_that_swallows_the_interrupt_still_ends_the_cell_with_keyboardinterrupt(kernel, control):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="working\n")
        await job.until(lambda: job.interrupts)
        job.emit("stream", name="stdout", text="saved\n")
        job.end()

    control.script = script
    cell = kernel.start("%%gpu_run\nx")
    kernel.until_text(cell, "working")
    kernel.interrupt()
    shown = kernel.finish(cell)
    assert shown.text() == "saved\n"
    assert shown.reply["ename"] == "KeyboardInterrupt"
    assert "caught that" in shown.contents("error")[0]["traceback"][0]


def test_the_second_interrupt_cancels_and_the_third_stops_waiting(kernel, control):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="stubborn\n")
        await job.until(lambda: job.interrupts == 99)

    control.script = script
    cell = kernel.start("%%gpu_run\nx")
    kernel.until_text(cell, "stubborn")
    kernel.interrupt()
    kernel.until_text(cell, "Interrupting")
    kernel.interrupt()
    kernel.until_text(cell, "Cancelling")
    kernel.interrupt()
    shown = kernel.finish(cell)
    assert shown.reply["ename"] == "KeyboardInterrupt"
    assert "no longer waiting" in shown.contents("error")[0]["traceback"][0]
    # The kernel is whole: its own interrupts work as before.
    cell = kernel.start("print('here', flush=True)\nimport time\ntime.sleep(60)")
    kernel.until_text(cell, "here")
    kernel.interrupt()
    assert kernel.finish(cell).reply["ename"] == "KeyboardInterrupt"


def test_interrupting_a_job_that_still_waits_cancels_it(kernel, control):
    async def script(job):
        await job.until(lambda: job.cancels)
        job.end(Phase.CANCELLED, Reason(code="cancelled", message="cancelled by ada"), None)

    control.script = script
    cell = kernel.start("%%gpu_run --gpus 1\nx")
    while kernel.message(cell)["msg_type"] != "display_data":
        pass
    kernel.interrupt()
    shown = kernel.finish(cell)
    assert shown.reply["ename"] == "KeyboardInterrupt"
    assert "was cancelled" in shown.contents("error")[0]["traceback"][0]


def test_on_interrupt_detach_leaves_the_job_running_and_attach_comes_back(kernel, control):
    control.script = interruptible
    cell = kernel.start("%%gpu_run --on-interrupt detach\nx")
    kernel.until_text(cell, "working")
    kernel.interrupt()
    shown = kernel.finish(cell)
    job = control.jobs[-1]
    assert shown.reply["ename"] == "KeyboardInterrupt"
    assert f"%gpu attach {job.job.id}" in shown.contents("error")[0]["traceback"][0]
    assert (job.interrupts, job.cancels) == (0, 0)

    cell = kernel.start(f"%gpu attach {job.job.id}")
    kernel.until_text(cell, "working")
    control.call(lambda: setattr(job, "interrupts", 1) or job.touch())
    assert kernel.finish(cell).contents("error")[0]["traceback"] == ["far KeyboardInterrupt"]


def test_a_detached_job_is_a_handle_that_shows_itself_and_its_output(kernel, control):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="hello\n")
        job.emit("result", data={"text/plain": "42"}, metadata={}, execution_count=1)
        await job.until(lambda: job.interrupts)
        job.end()

    control.script = script
    shown = kernel.run("%%gpu_run --detach\nx")
    (result,) = shown.contents("execute_result")
    job = control.jobs[-1]
    assert result["data"][MIME]["job"] == job.job.id
    assert job.job.id in result["data"]["text/plain"]
    assert job.job.id in result["data"]["text/html"]
    assert kernel.run("h = _\nprint(h.id, h.status().phase)").text() == f"{job.job.id} running\n"
    again = kernel.run("h.output()")
    assert again.text() == "hello\n"
    assert again.contents("execute_result")[0]["data"] == {"text/plain": "42"}
    assert kernel.run("h.wait(0.2)").reply["ename"] == "TimeoutError"
    control.call(lambda: setattr(job, "interrupts", 1) or job.touch())
    assert kernel.run("print(h.wait().phase)").text() == "succeeded\n"
    assert kernel.run("print(h.logs(), end='')").text() == "hello\n42\n"
    assert kernel.run(f"%gpu logs {job.job.id}").text() == "hello\n42\n"
    assert "succeeded" in kernel.run(f"%gpu status {job.job.id}").text()
    assert kernel.run("h.attach()").text() == "hello\n"


def test_a_service_that_stays_away_is_noted_once(kernel, control):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="one\n")
        await job.until(lambda: job.interrupts)
        job.emit("stream", name="stdout", text="two\n")
        job.end()

    control.script = script
    cell = kernel.start("%%gpu_run\nx")
    kernel.until_text(cell, "one")
    control.call(control.pause)
    kernel.until_text(cell, "doesn't answer")
    control.call(control.resume)
    control.call(lambda: setattr(control.jobs[-1], "interrupts", 1) or control.jobs[-1].touch())
    shown = kernel.finish(cell)
    assert shown.text() == "two\n"
    assert shown.text("stderr") == ""
    assert shown.reply["status"] == "ok"


def test_stopping_before_the_job_has_an_id_cancels_it_when_it_has_one(kernel, control):
    async def script(job):
        await job.until(lambda: job.cancels)
        job.end(Phase.CANCELLED, Reason(code="cancelled", message="cancelled by ada"), None)

    control.script = script
    control.call(control.pause)
    try:
        cell = kernel.start("%%gpu_run\nx")
        assert control.asked.wait(20)
        kernel.interrupt()
        kernel.until_text(cell, "Cancelling the job")
    finally:
        control.call(control.resume)
    shown = kernel.finish(cell)
    assert "was cancelled" in shown.contents("error")[0]["traceback"][0]
    assert [job.cancels for job in control.jobs] == [1]


def test_a_job_deleted_while_it_is_watched_is_told(kernel, control):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="working\n")
        await job.until(lambda: job.interrupts)

    control.script = script
    cell = kernel.start("%%gpu_run\nx")
    kernel.until_text(cell, "working")
    (job,) = control.jobs

    def delete():
        control.jobs.clear()
        job.touch()

    control.call(delete)
    shown = kernel.finish(cell)
    assert shown.reply["ename"] == "NotFound"
    assert f"job {job.job.id} was deleted while its output was shown" in shown.contents("error")[0]["traceback"][0]


def test_nothing_reads_on_after_the_person_has_left(kernel, control):
    control.script = interruptible
    cell = kernel.start("%%gpu_run --on-interrupt detach\nx")
    kernel.until_text(cell, "working")
    kernel.interrupt()
    kernel.finish(cell)
    # The service's next sign of life, without any output, is where the reader ends.
    control.call(control.jobs[-1].touch)
    ended = "import threading\nreaders = [t for t in threading.enumerate() if t.name == 'gpu-run-output']\n"
    ended += "[t.join(20) for t in readers]\nprint(any(t.is_alive() for t in readers))"
    assert kernel.run(ended).text() == "False\n"


def test_a_new_kernel_shows_the_whole_output_of_a_job_that_the_old_one_waited_for(control, start_kernel_in, tmp_path):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="before\n")
        await job.until(lambda: job.interrupts)
        job.emit("stream", name="stdout", text="after\n")
        job.end()

    control.script = script
    env = {**os.environ, "JUPYTER_GPU_URL": control.url, "JUPYTER_GPU_TOKEN": "the-tests-token"}
    env |= {"IPYTHONDIR": str(tmp_path)}
    for kernel in start_kernel_in(env):
        kernel.until_text(kernel.start("%%gpu_run\nx"), "before")
    (job,) = control.jobs
    assert (job.interrupts, job.cancels) == (0, 0)
    for kernel in start_kernel_in(env):
        cell = kernel.start(f"%gpu attach {job.job.id}")
        kernel.until_text(cell, "before")
        control.call(lambda: setattr(job, "interrupts", 1) or job.touch())
        assert kernel.finish(cell).text() == "after\n"


def test_a_press_asks_for_more_each_time():
    steps = [next_step(press, on_interrupt="cancel", running=True) for press in (1, 2, 3)]
    assert steps == ["interrupt", "cancel", "leave"]
    assert [next_step(press, on_interrupt="cancel", running=False) for press in (1, 2)] == ["cancel", "leave"]
    assert next_step(1, on_interrupt="detach", running=True) == "detach"


def test_a_terminal_ipython_shows_a_job_too(control, tmp_path):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="hello\n")
        job.emit("result", data={"text/plain": "42"}, metadata={}, execution_count=1)
        job.emit("error", ename="KeyError", evalue="x", traceback=["far traceback"])
        job.end(Phase.FAILED, Reason(code="error", message="KeyError: x"), 1)

    control.script = script
    code = "get_ipython().run_line_magic('load_ext', 'jupyter_gpu_platform')\n"
    code += "get_ipython().run_cell_magic('gpu_run', '', 'x')"
    env = {**os.environ, "JUPYTER_GPU_URL": control.url, "JUPYTER_GPU_TOKEN": "the-tests-token"}
    env |= {"IPYTHONDIR": str(tmp_path)}
    argv = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code]
    shown = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "hello\n" in shown.stdout
    assert "42" in shown.stdout
    assert shown.stdout.count("far traceback") == 1
