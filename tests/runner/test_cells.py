"""A cell in a job shows what it would show in a notebook, in the same order."""

from __future__ import annotations

import pathlib

import pytest

from jupyter_gpu_platform.runner import processes

MESSAGES = """
import sys
from IPython.display import display, clear_output
print("one")
print("bad", file=sys.stderr)
handle = display({"a": 1}, display_id=True)
print("two")
handle.update({"a": 2})
clear_output(wait=True)
from comm import create_comm
comm = create_comm(target_name="t", data={"x": 1}, buffers=[b"\\x00\\xff"])
comm.send({"y": 2})
display("shown")
40 + 2
"""


def test_the_worker_keeps_nothing_of_what_a_cell_printed(attempt, agent):
    attempt.cell("print('text')\nprint(dict(get_ipython().history_manager.outputs))")
    assert attempt.finish()["exit_code"] == 0
    assert "".join(record["text"] for record in agent.records if record["type"] == "stream") == "text\n{}\n"


def test_messages_come_in_the_order_in_which_they_were_made(attempt, agent):
    attempt.cell(MESSAGES)
    assert attempt.finish()["exit_code"] == 0
    types = attempt.types()
    assert types == [
        *(
            "stream",
            "stream",
            "display",
            "stream",
            "display",
            "clear",
            "comm",
            "comm",
            "display",
            "result",
            "values",
            "exit",
        )
    ]
    records = agent.records
    assert [r["text"] for r in records if r["type"] == "stream"] == ["one\n", "bad\n", "two\n"]
    first, update = (r for r in records if r["type"] == "display" and r["transient"])
    assert first["transient"] == update["transient"]
    assert (first["update"], update["update"]) == (False, True)
    assert records[5]["wait"] is True
    assert records[6]["msg_type"] == "comm_open"
    assert records[6]["buffers"] == ["AP8="]
    assert records[9]["data"] == {"text/plain": "42"}
    assert records[9]["execution_count"] == 7
    assert agent.end == {
        "incarnation": attempt.supervisor()["incarnation"],
        "exit_code": 0,
        "reason": None,
        "last_seq": len(records),
    }


def test_an_error_is_shown_and_is_the_reason_of_the_end(attempt, agent):
    attempt.cell("print('before')\n1/0")
    result = attempt.finish()
    assert attempt.types() == ["stream", "error", "exit"]
    error = agent.records[1]
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "In[7]" in "".join(error["traceback"])
    assert result["exit_code"] == 1
    assert result["reason"]["code"] == "error"
    assert result["reason"]["details"] == {"ename": "ZeroDivisionError", "evalue": "division by zero"}
    assert agent.records[-1]["reason"] == result["reason"]


def test_the_cell_finds_a_kernel(attempt, agent):
    attempt.cell(
        "ip = get_ipython()\n"
        "print('IPKernelApp' in ip.config, type(ip).__name__, ip.kernel is not None)\n"
        "import tqdm.auto, asyncio; print(tqdm.auto.tqdm.__module__)\n"
        "await asyncio.sleep(0)\n"
        "%time pass\n"
        "!echo from a shell"
    )
    assert attempt.finish()["exit_code"] == 0
    assert "True ZMQInteractiveShell True\ntqdm.auto\n" in agent.text() or "tqdm" in agent.text()
    assert "from a shell" in agent.text()
    assert agent.text("stderr") == ""


def test_a_plot_is_a_display(attempt, agent):
    attempt.cell("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert attempt.finish()["exit_code"] == 0
    assert any("image/png" in r.get("data", {}) for r in agent.records)


def test_output_of_child_processes_and_forks_is_kept(attempt, agent):
    attempt.cell(
        "import os\nos.system('echo child')\n"
        "pid = os.fork()\n"
        "if not pid:\n    print('forked', flush=True)\n    os._exit(0)\n"
        "os.waitpid(pid, 0);"
    )
    assert attempt.finish()["exit_code"] == 0
    assert "child\n" in agent.text()
    assert "forked\n" in agent.text()


@pytest.mark.parametrize(
    ("code", "exit_code", "number"),
    [
        ("import os; os._exit(3)", 3, None),
        ("import ctypes; ctypes.string_at(0)", 139, 11),
        ("import os; os.kill(os.getpid(), 9)", 137, 9),
    ],
)
def test_a_sudden_end_is_told_as_it_was_and_loses_no_text(attempt, agent, code, exit_code, number):
    attempt.cell(f"print('still', end='')\n{code}")
    result = attempt.finish()
    assert agent.text() == "still"
    assert (result["exit_code"], result["signal"]) == (exit_code, number)
    assert result["reason"]["code"] == ("signal" if number else "exit_code")
    assert agent.end["reason"] == result["reason"]


@pytest.mark.parametrize("code", ["while True: pass", "import asyncio; await asyncio.sleep(1000)"])
def test_an_interrupt_is_raised_in_the_cell(attempt, agent, code):
    attempt.cell(f"print('go')\n{code}")
    agent.wait_for_text("go\n")
    agent.want("run", interrupts=1)
    result = attempt.finish()
    assert result["reason"]["code"] == "error"
    assert result["reason"]["details"]["ename"] in ("KeyboardInterrupt", "CancelledError")


def test_an_interrupt_that_is_caught_ends_nothing(attempt, agent):
    attempt.cell(
        "import time\n"
        "for turn in range(2):\n"
        "    print('turn', turn)\n"
        "    try:\n        time.sleep(1000)\n"
        "    except KeyboardInterrupt:\n        print('caught')\n"
    )
    agent.wait_for_text("turn 0\n")
    agent.want("run", interrupts=1)
    agent.wait_for_text("turn 1\n")
    agent.want("run", interrupts=2)
    assert attempt.finish()["exit_code"] == 0
    assert agent.text().count("caught") == 2


def test_carriage_returns_long_lines_and_odd_bytes_are_kept(attempt, agent):
    attempt.cell(
        "import os, sys\n"
        "print('10%\\r20%\\r', end='')\n"
        "print('x' * 2**20)\n"
        "print('é' * 2**20)\n"
        "print('lone \\ud800')\n"
        "sys.stdout.buffer.write('ü'.encode()[:1]); sys.stdout.buffer.write('ü'.encode()[1:])\n"
        "os.write(2, b'a\\xff\\xc3')\n"
        "None"
    )
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == "10%\r20%\r" + "x" * 2**20 + "\n" + "é" * 2**20 + "\nlone ?\nü"
    assert agent.text("stderr") == "a��"


def test_nan_in_a_display_is_still_json(attempt, agent):
    attempt.cell("from IPython.display import display\ndisplay({'application/json': {'x': float('nan')}}, raw=True)")
    assert attempt.finish()["exit_code"] == 0
    assert b"NaN" not in b"".join(agent.lines).replace(b'"NaN"', b"").replace(b'"nan"', b"")
    assert "display" in attempt.types()


def test_much_output_is_whole(attempt, agent):
    attempt.cell("line = 'y' * 79\nfor _ in range(300_000):\n    print(line)")
    assert attempt.finish()["exit_code"] == 0
    assert agent.text() == ("y" * 79 + "\n") * 300_000


def test_output_over_the_limit_is_cut_with_a_notice_and_the_error_still_shows(attempt, agent):
    agent.max_output_bytes = 400_000
    attempt.cell("for _ in range(30):\n    print('z' * 100_000)\n1/0")
    assert attempt.finish()["reason"]["code"] == "error"
    records = agent.records
    assert [r["type"] for r in records if r["type"] != "stream"] == ["gap", "error", "exit"]
    assert next(r for r in records if r["type"] == "gap")["code"] == "output_limit"
    assert sum(map(len, agent.lines)) <= 400_000


def test_a_display_too_large_for_the_wire_leaves_a_notice(attempt, agent):
    attempt.cell("from IPython.display import display\ndisplay({'text/plain': 'q' * 8_000_000}, raw=True)\nprint('on')")
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types() == ["gap", "stream", "exit"]


def test_an_interpreter_without_ipykernel_runs_cells_too(attempt, agent):
    bare = attempt.folder / "bare"
    bare.mkdir()
    pathlib.Path(bare / "ipykernel.py").write_text("raise ImportError('not here')")
    attempt.cell(
        "import asyncio\nprint('plain')\ndef f():\n    return 1/0\nawait asyncio.sleep(0)\ndisplay(3)\n'last'",
        env={"PYTHONPATH": str(bare)},
    )
    assert attempt.finish()["exit_code"] == 0
    assert attempt.types() == ["stream", "display", "result", "values", "exit"]
    assert agent.records[2]["data"]["text/plain"] == "'last'"


def test_a_daemon_of_the_cell_is_gone_at_the_end(attempt, agent):
    # The shell of the middle ends at once, so that the sleeping one is nobody's child.
    attempt.cell(
        "import subprocess\n"
        "script = 'setsid sleep 1000 >/dev/null & echo $!'\n"
        "p = subprocess.Popen(['setsid', 'sh', '-c', script], stdout=subprocess.PIPE)\n"
        "print(p.communicate()[0].decode())"
    )
    assert attempt.finish()["exit_code"] == 0
    assert processes.start_time(int(agent.text())) is None
    assert processes.marked(attempt.supervisor()["incarnation"]) == []
