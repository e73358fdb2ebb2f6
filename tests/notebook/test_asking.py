"""Questions of a job's code: asked under the cell, answered until the answer was taken, withdrawn when settled."""

from __future__ import annotations

from jupyter_gpu_platform.model.jobs import Phase, Reason


async def asking(job):
    """Ask for a name, take the second answer: the first is lost on its way."""
    job.run()
    job.emit("input", request=1, prompt="name? ", password=False)
    await job.until(lambda: len(job.answers) == 2)
    job.emit("input_reply", request=1)
    job.emit("stream", name="stdout", text=f"hello {job.answers[-1][1]}\n")
    job.end()


def test_a_question_is_asked_in_the_notebook_and_answered_until_it_is_taken(kernel, control):
    control.script = asking
    cell = kernel.start("%%gpu_run\ninput('name? ')", stdin=True)
    assert kernel.question() == {"prompt": "name? ", "password": False}
    kernel.answer("ada")
    shown = kernel.finish(cell)
    assert shown.text() == "hello ada\n"
    assert shown.reply["status"] == "ok"
    assert [entry["type"] for entry in shown.outputs()] == ["stream"]
    assert control.jobs[-1].answers == [(1, "ada"), (1, "ada")]
    assert control.jobs[-1].job.spec.source.frontend.stdin


def test_a_password_is_asked_for_as_one(kernel, control):
    async def script(job):
        job.run()
        job.emit("input", request=1, prompt="key: ", password=True)
        await job.until(lambda: job.answers)
        job.emit("input_reply", request=1)
        job.end()

    control.script = script
    cell = kernel.start("%%gpu_run\nx", stdin=True)
    assert kernel.question() == {"prompt": "key: ", "password": True}
    kernel.answer("hush")
    shown = kernel.finish(cell)
    assert control.jobs[-1].answers[0] == (1, "hush")
    assert "hush" not in str(shown.messages)


def test_a_job_is_told_where_nobody_can_be_asked(kernel, control):
    async def script(job):
        job.run()
        job.end()

    control.script = script
    kernel.run("%%gpu_run\nx")
    kernel.finish(kernel.start("%%gpu_run --detach\nx", stdin=True))
    assert [job.job.spec.source.frontend.stdin for job in control.jobs] == [False, False]


def test_the_stop_button_at_a_question_interrupts_the_far_code(kernel, control):
    async def script(job):
        job.run()
        job.emit("input", request=1, prompt="name? ", password=False)
        await job.until(lambda: job.interrupts)
        job.emit("error", ename="KeyboardInterrupt", evalue="", traceback=["far KeyboardInterrupt"])
        job.end(Phase.FAILED, Reason(code="error", message="KeyboardInterrupt"), 1)

    control.script = script
    cell = kernel.start("%%gpu_run\nx", stdin=True)
    kernel.question()
    kernel.interrupt()
    shown = kernel.finish(cell)
    assert shown.contents("error")[0]["traceback"] == ["far KeyboardInterrupt"]
    assert control.jobs[-1].answers == []


def test_a_question_is_taken_back_when_the_job_ends(kernel, control):
    async def script(job):
        job.run()
        job.emit("input", request=1, prompt="name? ", password=False)
        await job.until(lambda: job.cancels)
        job.end(Phase.CANCELLED, Reason(code="cancelled", message="cancelled by bob"), None)

    control.script = script
    cell = kernel.start("%%gpu_run\nx", stdin=True)
    kernel.question()
    control.call(lambda: setattr(control.jobs[-1], "cancels", 1) or control.jobs[-1].touch())
    shown = kernel.finish(cell)
    assert shown.reply["ename"] == "JobFailed"
    assert "cancelled by bob" in "\n".join(shown.contents("error")[0]["traceback"])
    # The kernel is whole.
    assert kernel.run("print(1)").text() == "1\n"


def test_questions_that_were_answered_long_ago_are_not_asked_again(kernel, control):
    async def script(job):
        job.run()
        job.emit("input", request=1, prompt="old? ", password=False)
        job.emit("stream", name="stdout", text="before\n")
        job.emit("input_reply", request=1)
        job.emit("input", request=2, prompt="new? ", password=False)
        await job.until(lambda: job.answers)
        job.emit("input_reply", request=2)
        job.end()

    control.script = script
    kernel.run("%%gpu_run --detach\nx")
    cell = kernel.start("%gpu attach", stdin=True)
    assert kernel.question()["prompt"] == "new? "
    kernel.answer("yes")
    assert kernel.finish(cell).reply["status"] == "ok"
    assert {request for request, _ in control.jobs[-1].answers} == {2}


def test_attaching_where_nobody_can_be_asked_says_so(kernel, control):
    control.script = asking
    kernel.run("%%gpu_run --detach\nx")
    cell = kernel.start("%gpu attach")
    kernel.until_text(cell, "nobody can be asked here")
    control.call(lambda: control.jobs[-1].answers.extend([(1, "a"), (1, "bob")]) or control.jobs[-1].touch())
    assert kernel.finish(cell).text() == "hello bob\n"
