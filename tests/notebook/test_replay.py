"""Output that comes back from a job equals the output of the same cell run in the kernel."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_gpu_platform.model.jobs import Phase, Reason

CELLS = {
    "text on both streams": "import sys\nprint('out')\nsys.stdout.flush()\nprint('err', file=sys.stderr)",
    "carriage returns": "print('10%\\r20%\\r100%', end='')",
    "nothing": "pass",
    "result": "6 * 7",
    "silenced result": "6 * 7;",
    "rich result": "from IPython.display import HTML\nHTML('<b>bold</b>')",
    "displays": "display({'a': 1})\ndisplay('x', metadata={'text/plain': {'k': 1}})\nprint('after')",
    "update": "h = display('one', display_id='fixed')\nh.update('two')",
    "clear": "from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')",
    "image": (
        "from IPython.display import Image\nimport base64\n"
        "Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='))"
    ),
    "error": "def f():\n    return 1 / 0\n\nprint('before')\nf()",
    "syntax error": "1 +",
    "several results": "from IPython.core.getipython import get_ipython\nget_ipython().displayhook(1)\n2",
    "large text": "print('x' * 3_000_000)",
}


def as_records(outputs: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Turn a kernel's own messages into the records that a job's runner would have made of them."""
    records = []
    for entry in outputs:
        content = {name: value for name, value in entry.items() if name != "type"}
        match entry["type"]:
            case "stream":
                records.append(("stream", content))
            case "display_data" | "update_display_data":
                records.append(("display", {**content, "update": entry["type"].startswith("update")}))
            case "clear_output":
                records.append(("clear", content))
            case "execute_result":
                records.append(("result", content))
            case "error":
                records.append(("error", content))
            case "comm_open" | "comm_msg" | "comm_close" as kind:
                records.append(("comm", {"msg_type": kind, "content": content, "metadata": {}, "buffers": []}))
    return records


def plays(records: list[tuple[str, dict[str, Any]]], *, failed: bool = False) -> Any:
    async def script(job: Any) -> None:
        job.run()
        for kind, fields in records:
            job.emit(kind, **fields)
        if failed:
            job.end(Phase.FAILED, Reason(code="error", message="the cell raised"), 1)
        else:
            job.end()

    return script


def without_counters(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name != "execution_count"} for entry in outputs]


@pytest.mark.parametrize("name", CELLS)
def test_the_messages_of_a_replayed_cell_equal_those_of_the_cell_run_here(name, kernel, control):
    here = kernel.run(CELLS[name])
    control.script = plays(as_records(here.outputs()), failed=here.reply["status"] == "error")
    there = kernel.run(f"%%gpu_run\n{CELLS[name]}")
    assert without_counters(there.outputs()) == without_counters(here.outputs())
    assert there.reply["status"] == here.reply["status"]
    if here.reply["status"] == "error":
        assert there.reply["ename"] == here.reply["ename"]
        assert there.reply["evalue"] == here.reply["evalue"]
        assert there.reply["traceback"] == here.reply["traceback"]
    assert control.jobs[-1].job.spec.source.code == CELLS[name]


def test_the_result_is_in_underscore_and_out_under_its_own_number(kernel, control):
    data = {"text/plain": "42", "text/html": "<b>42</b>"}
    control.script = plays([("result", {"data": data, "metadata": {}, "execution_count": 1})])
    shown = kernel.run("%%gpu_run\n6 * 7")
    (result,) = shown.contents("execute_result")
    assert result["data"] == data
    count = result["execution_count"]
    assert count == shown.reply["execution_count"] == control.jobs[-1].job.spec.source.execution_count
    again = kernel.run(f"print(repr(_), Out[{count}])")
    assert again.text() == "42 42\n"


def test_an_outer_capture_takes_everything(kernel, control):
    data = {"text/plain": "42"}
    control.script = plays(
        [
            ("stream", {"name": "stdout", "text": "out\n"}),
            ("display", {"data": data, "metadata": {}, "transient": {}, "update": False}),
            ("result", {"data": data, "metadata": {}, "execution_count": 1}),
        ]
    )
    code = "from IPython.utils.capture import capture_output\nwith capture_output() as taken:\n    "
    shown = kernel.run(code + "get_ipython().run_cell_magic('gpu_run', '', 'x')\n")
    assert shown.outputs() == []
    assert kernel.run("print(taken.stdout, len(taken.outputs))").text() == "out\n 2\n"


def test_the_shell_does_not_keep_all_text_of_a_far_cell(kernel, control):
    """IPython keeps what a cell prints; of a far one it keeps the beginning."""
    pieces = [("stream", {"name": "stdout", "text": f"{number} ".ljust(400_000, "x") + "\n"}) for number in range(20)]
    control.script = plays(pieces)
    assert len(kernel.run("%%gpu_run\nprint(much)").text()) == 20 * 400_001
    newest = "[*get_ipython().history_manager.outputs.values()][-1]"
    kept = kernel.run(f"print([len(text) for output in {newest} for text in output.bundle['stream']])")
    assert kept.text() == "[400001, 400001]\n"


def test_an_error_in_mid_cell_shows_at_its_place_and_the_last_one_once(kernel, control):
    def error(name):
        return ("error", {"ename": name, "evalue": "bad", "traceback": [f"far traceback of {name}"]})

    text = ("stream", {"name": "stdout", "text": "went on\n"})
    control.script = plays([error("KeyError"), text, error("ValueError")], failed=True)
    shown = kernel.run("%%gpu_run\ndisplay(bad)")
    assert [entry["type"] for entry in shown.outputs()] == ["error", "stream", "error"]
    assert [content["ename"] for content in shown.contents("error")] == ["KeyError", "ValueError"]
    assert shown.reply["ename"] == "ValueError"


def test_an_error_that_was_shown_long_before_the_end_is_not_shown_twice(kernel, control):
    async def script(job):
        job.run()
        job.emit("error", ename="ValueError", evalue="bad", traceback=["far traceback"])
        await job.until(lambda: job.interrupts)
        job.end(Phase.FAILED, Reason(code="error", message="the cell raised"), 1)

    control.script = script
    cell = kernel.start("%%gpu_run\nraise ValueError('bad')")
    while kernel.message(cell)["msg_type"] != "error":
        pass
    control.call(lambda: setattr(control.jobs[-1], "interrupts", 1) or control.jobs[-1].touch())
    shown = kernel.finish(cell)
    assert shown.contents("error") == []
    assert shown.reply["status"] == "error"
    assert shown.reply["traceback"] == ["far traceback"]
    # Only that once: the next error is shown again.
    assert len(kernel.run("1 / 0").contents("error")) == 1


def test_a_display_error_of_a_job_that_ended_well_raises_nothing(kernel, control):
    control.script = plays([("error", {"ename": "KeyError", "evalue": "x", "traceback": ["far"]})])
    shown = kernel.run("%%gpu_run\ndisplay(bad)")
    assert len(shown.contents("error")) == 1
    assert shown.reply["status"] == "ok"


def test_widgets_are_opened_under_their_own_ids(kernel, control):
    opening = {"comm_id": "far-1", "target_name": "jupyter.widget", "data": {"state": {}}}
    control.script = plays(
        [
            ("comm", {"msg_type": "comm_open", "content": opening, "metadata": {"version": "2.1.0"}, "buffers": []}),
            (
                "comm",
                {
                    "msg_type": "comm_msg",
                    "content": {"comm_id": "far-1", "data": {"n": 1}},
                    "metadata": {},
                    "buffers": ["AAE="],
                },
            ),
            ("comm", {"msg_type": "comm_close", "content": {"comm_id": "far-1", "data": {}}, "metadata": {}}),
        ]
    )
    shown = kernel.run("%%gpu_run\nwidget")
    kinds = [entry["type"] for entry in shown.outputs()]
    assert kinds == ["comm_open", "comm_msg", "comm_close"]
    assert shown.contents("comm_open")[0]["target_name"] == "jupyter.widget"
    assert shown.contents("comm_msg")[0]["data"] == {"n": 1}
    opened, told, _ = (message for message in shown.messages if message["msg_type"].startswith("comm"))
    assert opened["metadata"]["version"] == "2.1.0"
    assert bytes(told["buffers"][0]) == b"\x00\x01"


def test_missing_output_is_said(kernel, control):
    control.script = plays([("gap", {"code": "output_limit", "message": "more than 1 MiB"})])
    assert "output is missing here: more than 1 MiB" in kernel.run("%%gpu_run\nx").text("stderr")


def test_a_cut_stream_goes_on_where_it_was(kernel, control):
    async def script(job):
        job.run()
        job.emit("stream", name="stdout", text="one\n")
        await job.until(lambda: job.interrupts)
        job.emit("stream", name="stdout", text="two\n")
        job.end()

    control.script = script
    cell = kernel.start("%%gpu_run\nx")
    kernel.until_text(cell, "one")

    def cut():
        control.outage += 1
        job = control.jobs[-1]
        job.interrupts = 1
        job.touch()

    control.call(cut)
    shown = kernel.finish(cell)
    assert shown.text() == "two\n"
    assert control.cursors == ["", "c1"]
