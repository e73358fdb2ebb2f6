"""Runners on standby: taken by cells and functions, once; gone with their agent, or when nobody comes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil
import pytest
from jupyter_gpu_agent.executors import AttemptKey
from jupyter_gpu_agent.process import memory

from jupyter_gpu_platform.model.jobs import Cell, Environment

from ..memory_core import KEY
from .test_executor import desired, run, sh, state_dir

__all__ = ["state_dir"]

SECOND, THIRD = AttemptKey("j2", 1), AttemptKey("j3", 1)


def waiting(state_dir):
    """Supervisors of this test that know no attempt (any more, or yet), with the workers below them."""
    found = []
    for process in psutil.Process().children():
        line = process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
        if "--standby" in line and str(state_dir) in line:
            found.append(process)
    return found


async def until(check):
    """Wait for processes, whose coming and going nothing tells."""
    async with asyncio.timeout(30):
        while not (value := check()):  # noqa: ASYNC110 -- they are other processes
            await asyncio.sleep(0.02)
        return value


def cell(code, key=KEY, **environment):
    return desired(Cell(code=code), key=key, environment=Environment(**environment))


async def warm(core, executor, state_dir):
    """Run a cell, and wait for what stands by for the next one: it may come, and go, before the cell has ended."""
    stands_by = asyncio.create_task(until(lambda: waiting(state_dir)))
    await executor.apply(cell("print('first')"))
    await core.report()
    return (await stands_by)[0]


def supervisor_of(core, key):
    return int(core.reports[key].incarnation.split("-")[1])


def test_the_next_cell_takes_it_and_the_one_after_takes_another(state_dir):
    async def test(core, make):
        executor = await make()
        first = await warm(core, executor, state_dir)
        await executor.apply(cell("import os\nprint('second', os.environ['JGP_JOB_ID'])", SECOND))
        report = await core.report(SECOND)
        assert core.text(SECOND) == "second j2\n"
        assert supervisor_of(core, SECOND) == first.pid
        assert report.incarnation == core.claimed[SECOND]
        (second,) = await until(lambda: [p for p in waiting(state_dir) if p.pid != first.pid])
        await executor.apply(cell("print('third')", THIRD))
        await core.report(THIRD)
        assert supervisor_of(core, THIRD) == second.pid

    run(state_dir, test, standby=1)


def test_programs_leave_it_alone(state_dir):
    async def test(core, make):
        executor = await make()
        process = await warm(core, executor, state_dir)
        await executor.apply(sh("true", key=SECOND))
        await core.report(SECOND)
        assert waiting(state_dir) == [process]
        assert supervisor_of(core, SECOND) != process.pid

    run(state_dir, test, standby=1)


def test_without_the_setting_nothing_is_planned(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(cell("print(1)"))
        await core.report()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("standby")]

    run(state_dir, test)


@pytest.mark.parametrize("whom", ["supervisor", "worker"])
def test_one_that_was_killed_is_not_missed(state_dir, whom):
    async def test(core, make):
        executor = await make()
        process = await warm(core, executor, state_dir)
        victim = process if whom == "supervisor" else (await until(process.children))[0]
        victim.send_signal(signal.SIGKILL)
        await until(lambda: not waiting(state_dir))
        await executor.apply(cell("print('all the same')", SECOND))
        assert (await core.report(SECOND)).exit_code == 0
        assert core.text(SECOND) == "all the same\n"

    run(state_dir, test, standby=1)


def test_one_that_dies_with_the_attempt_in_its_hands_is_replaced(state_dir):
    async def test(core, make):
        executor = await make()
        process = await warm(core, executor, state_dir)
        process.suspend()  # what it is given now, it never takes
        await executor.apply(cell("print('in the end')", SECOND))
        process.kill()
        assert (await core.report(SECOND)).exit_code == 0
        assert core.text(SECOND) == "in the end\n"

    run(state_dir, test, standby=1)


def test_a_job_that_it_runs_outlives_the_agent_and_is_stopped_and_forgotten_as_any(state_dir):
    async def test(core, make):
        executor = await make()
        process = await warm(core, executor, state_dir)
        code = "import subprocess, time\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\nprint('on')"
        await executor.apply(cell(f"{code}\ntime.sleep(1000)", SECOND))
        await core.until(lambda: "on" in core.text(SECOND))
        below = process.children(recursive=True)
        assert len(below) == 2
        await executor.close()
        assert not [p for p in waiting(state_dir) if p.pid != process.pid]
        again = await make()
        assert SECOND in [(owned.job, owned.attempt) for owned in again.owned()]
        await core.want("stop", key=SECOND, grace=0.0)
        assert (await core.report(SECOND)).reason.code == "stopped"
        await again.forget(SECOND)
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below)

    run(state_dir, test, standby=1)


def test_the_agents_end_is_its_end(state_dir):
    async def test(core, make):
        executor = await make()
        process = await warm(core, executor, state_dir)
        worker = (await until(process.children))[0]
        await executor.close()
        assert not waiting(state_dir)
        await until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)

    run(state_dir, test, standby=1)


def test_it_is_ended_when_nobody_comes(state_dir):
    async def test(core, make):
        executor = await make()
        await warm(core, executor, state_dir)
        await until(lambda: not waiting(state_dir))

    run(state_dir, test, standby=1, standby_seconds=0.5)


def test_there_are_no_more_than_the_setting_says(state_dir):
    other = os.path.realpath(sys.executable)

    async def test(core, make):
        executor = await make()
        first = await warm(core, executor, state_dir)
        await executor.apply(cell("print('elsewhere')", SECOND, python=other))
        await core.report(SECOND)
        (second,) = await until(lambda: [p for p in waiting(state_dir) if p.pid != first.pid])
        assert not first.is_running()
        assert other in second.cmdline()

    run(state_dir, test, standby=1)


def test_memory_is_that_of_the_machine_or_of_the_container_if_that_is_less(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  2000 kB\nMemFree: 100 kB\nMemAvailable:   1000 kB\n")
    group = (str(tmp_path / "limit"), str(tmp_path / "use"))

    def available():
        return memory.available(tmp_path / "meminfo", (group,))

    assert available() == 1000 * 1024
    (tmp_path / "use").write_text("1000\n")
    (tmp_path / "limit").write_text("max\n")
    assert available() == 1000 * 1024
    (tmp_path / "limit").write_text("50000\n")
    assert available() == 49000
