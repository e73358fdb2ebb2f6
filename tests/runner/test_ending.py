"""How a process ended, in words."""

from __future__ import annotations

import signal
from pathlib import Path

from jupyter_gpu_platform.runner.ending import end_reason, memory_kills


def test_a_kill_is_put_down_to_memory_only_where_the_kernel_counted_one() -> None:
    code, number, why = end_reason(signal.SIGKILL, None, short_of_memory=True)
    assert (code, number) == (137, signal.SIGKILL)
    assert why is not None
    assert why["code"] == "oom_killed"
    other = end_reason(signal.SIGKILL, None)[2]
    assert other is not None
    assert other["code"] == "signal"
    fault = end_reason(signal.SIGSEGV, None, short_of_memory=True)[2]
    assert fault is not None
    assert fault["code"] == "signal"


def test_the_kernels_count_is_read_in_both_forms(tmp_path: Path) -> None:
    v2, v1 = tmp_path / "memory.events", tmp_path / "memory.oom_control"
    v2.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    v1.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert memory_kills((str(tmp_path / "none"), str(v2))) == 2
    assert memory_kills((str(v1),)) == 5
    assert memory_kills((str(tmp_path / "none"),)) == 0
