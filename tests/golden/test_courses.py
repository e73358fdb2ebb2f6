"""Runs that take a turn: interrupted once, twice, three times; detached and found again; two notebooks at once."""

from __future__ import annotations

import hashlib
import re

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Phase

from .kernels import Kernel, kernel
from .transcripts import Transcript, is_card, normalised, tree_differences

WORKING = """
import time
def work():
    try:
        print("working")  # not flushed: the interrupt would meet the kernel's flush here
        time.sleep(100)
    except KeyboardInterrupt:
        print("except ran", flush=True)
        raise
    finally:
        print("finally ran", flush=True)
work()
"""
STUBBORN = """
import signal, time
print("working", flush=True)
presses = 0
while True:
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        presses += 1
        print("caught", presses, flush=True)
"""
UNSTOPPABLE = (
    "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('politely asked', flush=True))\n" + STUBBORN
)


def newest(client: Client) -> str:
    return client.jobs().items[0].id


def displayed(run: Transcript) -> list[str]:
    return [content["data"]["text/plain"] for content in run.contents("display_data") if not is_card(content)]


def interrupted(one: Kernel, code: str) -> Transcript:
    cell = one.start(code)
    one.until_text(cell, "working")
    one.interrupt()
    return one.finish(cell)


def test_the_first_interrupt_is_a_keyboardinterrupt_in_the_far_code(pair):
    here, there = (
        interrupted(one, magic + WORKING.strip()) for one, magic in zip(pair, ("", "%%gpu_run\n"), strict=True)
    )
    errors = []
    for run in (here, there):
        assert run.text().endswith("except ran\nfinally ran\n")
        (error,) = run.contents("error")
        tree = {"messages": [], "reply": {"error": error, "reply": run.reply}}
        number = str(run.reply["execution_count"])  # the other tests here leave the two kernels out of step
        errors.append(normalised(tree, {**run.own, f"In[{number}]": "In[…]"}))
        del errors[-1]["reply"]["reply"]["execution_count"]
    found = tree_differences(*errors)
    assert not found, "\n".join(found)
    assert "Interrupting job" in there.text("stderr")


def test_the_second_interrupt_cancels_the_job(pair, client):
    one = pair[1]
    cell = one.start("%%gpu_run\n" + STUBBORN)
    one.until_text(cell, "working")
    one.interrupt()
    one.until_text(cell, "caught 1")
    one.interrupt()
    shown = one.finish(cell)
    assert (shown.reply["status"], shown.reply["ename"]) == ("error", "KeyboardInterrupt")
    assert "was cancelled" in shown.reply["evalue"]
    assert client.job(newest(client)).phase is Phase.CANCELLED


def test_the_third_interrupt_gives_the_cell_back_at_once(pair, client):
    one = pair[1]
    cell = one.start("%%gpu_run\n" + UNSTOPPABLE)
    one.until_text(cell, "working")
    one.interrupt()
    one.until_text(cell, "caught 1")
    one.interrupt()
    one.until_text(cell, "politely asked")
    one.interrupt()
    shown = one.finish(cell)
    assert shown.reply["ename"] == "KeyboardInterrupt"
    assert "no longer waiting" in shown.reply["evalue"]
    assert one.run("'free'").contents("execute_result")[0]["data"] == {"text/plain": "'free'"}
    job_id = newest(client)
    *_, last = client.follow(job_id)  # it does end: by force, after its grace
    assert (last["type"], last["reason"]["code"]) == ("exit", "stopped")
    assert client.job(job_id).phase is Phase.CANCELLED


LONG = """
import time
for i in range(3000):
    print(f"line {i} " + "x" * (i % 70))
    if i % 500 == 0:
        display({"part": i})
        time.sleep(0.3)
"""


def test_a_detached_job_is_found_complete_by_a_restarted_kernel(platform_env, tmp_path, client):
    expected = "".join(f"line {i} " + "x" * (i % 70) + "\n" for i in range(3000))
    with kernel(platform_env, tmp_path / "work") as one:
        detached = one.run("%%gpu_run --detach\n" + LONG)
        job_id = re.search(r"\bj01\w+", str(detached.contents("execute_result"))).group()
        one.restart()
        runs = [one.run(f"%gpu attach {job_id}") for _ in range(2)]
    for run in runs:
        assert hashlib.sha256(run.text().encode()).hexdigest() == hashlib.sha256(expected.encode()).hexdigest()
        assert displayed(run) == [repr({"part": i}) for i in range(0, 3000, 500)]
        assert run.reply["status"] == "ok"
    records = list(client.follow(job_id))
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert records[-1]["type"] == "exit"
    assert "".join(record["text"] for record in records if record["type"] == "stream") == expected


def test_two_notebooks_at_once_show_each_its_own(pair):
    code = "%%gpu_run\nimport sys\nfor i in range(200):\n    print('{0}', i, flush=True)\n    display('{0}')\n"
    code += "    print('{0}', file=sys.stderr, flush=True)\n'{0}'"
    cells = [one.start(code.replace("{0}", name)) for one, name in zip(pair, ("left", "right"), strict=True)]
    for one, name, cell in zip(pair, ("left", "right"), cells, strict=True):
        shown = one.finish(cell)
        assert shown.text() == "".join(f"{name} {i}\n" for i in range(200))
        assert shown.text("stderr") == f"{name}\n" * 200
        assert displayed(shown) == [repr(name)] * 200
        assert shown.contents("execute_result")[0]["data"]["text/plain"] == repr(name)


def test_a_cell_that_ends_its_process_says_how_and_leaves_the_kernel_alone(pair):
    shown = pair[1].run("%%gpu_run\nprint('before')\nimport os\nos._exit(3)")
    assert shown.text() == "before\n"
    assert shown.reply["ename"] == "JobFailed"
    assert "ended with exit code 3" in shown.reply["evalue"]
    shown = pair[1].run("%%gpu_run\nprint('before')\nimport ctypes\nctypes.string_at(0)")
    assert shown.text() == "before\n"
    assert "SIGSEGV" in shown.reply["evalue"]
    shown = pair[1].run("%%gpu_run\nprint('before')\nexit()")
    assert (shown.text(), shown.reply["status"], shown.reply["payload"]) == ("before\n", "ok", [])
    assert pair[1].run("'alive'").reply["status"] == "ok"


def test_an_empty_cell_is_refused_without_frames(pair):
    """An empty cell gives nothing here; under the magic nothing would be a job for nothing, so it is an error."""
    assert pair[0].run("   \n").messages[-1]["content"] == {"execution_state": "idle"}
    there = pair[1].run("%%gpu_run --gpus 0\n   \n")
    assert (there.reply["status"], there.reply["ename"]) == ("error", "InvalidRequest")
    assert "the cell is empty" in there.reply["evalue"]
    (error,) = there.contents("error")
    assert not any("File " in line for line in error["traceback"])
    assert [message["type"] for message in there.messages] == ["status", "execute_input", "error", "status"]
