"""Supervisors that are forks: of a process that is there while it is needed, and is missed by nobody when it dies."""

import asyncio
import os

import psutil
from jupyter_gpu_agent.executors import AttemptKey
from jupyter_gpu_agent.process import processes

from .test_executor import run, sh, state_dir
from .test_standby import supervisor_of, until

__all__ = ["state_dir"]

KEYS = [AttemptKey(f"j{number}", 1) for number in range(8)]


def forkers(state_dir):
    return [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE
        and "--fork" in process.cmdline()
        and str(state_dir) in process.cmdline()
    ]


def test_supervisors_are_forks_of_one_process_with_sessions_of_their_own(state_dir):
    async def test(core, make):
        executor = await make()
        await asyncio.gather(*(executor.apply(sh("echo $JGP_JOB_ID", key=key)) for key in KEYS))
        await asyncio.gather(*(core.report(key) for key in KEYS))
        assert [core.text(key) for key in KEYS] == [f"{key.job}\n" for key in KEYS]
        assert len({supervisor_of(core, key) for key in KEYS}) == len(KEYS)
        (forker,) = forkers(state_dir)
        await executor.apply(sh("exec sleep 60", key=AttemptKey("j9", 1)))
        earlier = {supervisor_of(core, key) for key in KEYS}  # they may be about to end
        (supervisor,) = await until(lambda: [child for child in forker.children() if child.pid not in earlier])
        assert psutil.Process(supervisor.pid).environ().get("JGP_JOB_ID") is None
        assert os.getsid(supervisor.pid) == supervisor.pid
        supervisor.kill()
        assert (await core.report(AttemptKey("j9", 1))).reason.code == "supervisor_killed"
        assert forker.is_running()

    run(state_dir, test)
    assert forkers(state_dir) == []


def test_its_death_ends_no_job_and_delays_none(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("until test -e go; do sleep 0.05; done; echo done", key=KEYS[0]))
        (forker,) = await until(lambda: forkers(state_dir))
        (supervisor,) = await until(forker.children)
        forker.kill()
        await executor.apply(sh("echo after", key=KEYS[1]))
        await core.report(KEYS[1])
        assert core.text(KEYS[1]) == "after\n"
        (state_dir / "attempts" / "j0.1" / "work" / "go").touch()
        assert (await core.report(KEYS[0])).exit_code == 0
        assert (core.text(KEYS[0]), supervisor_of(core, KEYS[0])) == ("done\n", supervisor.pid)

    run(state_dir, test)


def test_an_idle_one_ends_once_its_supervisors_have(tmp_path):
    forker = processes.start_forker(tmp_path, idle=0.1)
    assert forker.wait(timeout=30) == 0
    for pipe in (forker.stdin, forker.stdout):
        pipe.close()
