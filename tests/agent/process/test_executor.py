"""The process executor, with real supervisors and an agent's core that lives in memory."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import signal
import tempfile

import pytest
from jupyter_gpu_agent.executors import AttemptKey, ExecutorSettings
from jupyter_gpu_agent.process import gpus
from jupyter_gpu_agent.process.executor import ProcessExecutor
from jupyter_gpu_agent.process.meeting import socket_path

from jupyter_gpu_platform.model.jobs import Cell, Command, Environment, JobSpec
from jupyter_gpu_platform.runner import processes as runner_processes
from jupyter_gpu_platform.wire.messages import Desired

from ..memory_core import KEY, MemoryCore


@pytest.fixture
def state_dir():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jgp-"))
    yield folder
    for path in folder.glob("attempts/*/supervisor.json"):
        pid = json.loads(path.read_text())["pid"]
        if runner_processes.start_time(pid) == json.loads(path.read_text())["pid_start"]:
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def run(state_dir, test, **settings):
    """Run *test(core, make)*; *make()* starts an executor on the same state directory, as a new agent would."""

    async def main():
        core = MemoryCore()
        made = []

        async def make():
            executor = ProcessExecutor(core, ExecutorSettings(state_dir=state_dir, **settings))
            await executor.start()
            made.append(executor)
            return executor

        try:
            await test(core, make)
        finally:
            for executor in made:
                await executor.close()

    asyncio.run(main())


def desired(source, *, key=KEY, uuids=(), **spec):
    return Desired(
        job=key.job,
        attempt=key.attempt,
        generation=1,
        action="run",
        spec=JobSpec(source=source, **spec),
        gpus=tuple(uuids),
    )


def sh(script, **more):
    return desired(Command(argv=("sh", "-c", script)), **more)


def test_an_attempt_runs_is_reported_and_forgotten(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("echo $GREETING, $JGP_ATTEMPT", env={"GREETING": "hello"}))
        report = await core.report()
        assert (report.exit_code, report.reason) == (0, None)
        assert report.incarnation == core.claimed[KEY]
        assert core.text() == "hello, 1\n"
        assert [(o.job, o.attempt, o.incarnation) for o in executor.owned()] == [("j1", 1, report.incarnation)]
        await executor.apply(sh("echo never twice"))
        await executor.forget(KEY)
        assert executor.owned() == []
        assert list((state_dir / "attempts").iterdir()) == []

    run(state_dir, test)


def test_a_cell_runs_in_the_submitters_directory(state_dir, tmp_path):
    async def test(core, make):
        executor = await make()
        await executor.apply(
            desired(Cell(code="import os; print(os.getcwd())"), environment=Environment(workdir=str(tmp_path)))
        )
        assert (await core.report()).exit_code == 0
        assert core.text() == f"{tmp_path}\n"

    run(state_dir, test)


def test_a_missing_working_directory_is_a_failed_start_with_the_reason(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("true", environment=Environment(workdir="/no/such/place")))
        report = await core.report()
        assert report.reason.code == "start_failed"
        assert "/no/such/place" in report.reason.message
        await executor.forget(KEY)

    run(state_dir, test)


def test_a_refused_claim_runs_nothing(state_dir, tmp_path):
    async def test(core, make):
        core.grant = False
        executor = await make()
        await executor.apply(sh(f"touch {tmp_path}/ran"))
        assert (await core.report()).reason.code == "claim_refused"
        assert not (tmp_path / "ran").exists()

    run(state_dir, test)


def test_a_stop_reaches_the_supervisor(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("echo up; sleep 1000"))
        await core.until(lambda: core.text() == "up\n")
        await core.want("stop", grace=5.0)
        await executor.stop(KEY, 5.0)
        assert (await core.report()).reason.code == "stopped"

    run(state_dir, test)


def test_forgetting_leaves_no_process(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("setsid sleep 1000 & echo $!; sleep 1000"))
        await core.until(lambda: core.text())
        await executor.forget(KEY)
        assert runner_processes.start_time(int(core.text())) is None
        assert executor.owned() == []

    run(state_dir, test)


def test_the_next_agent_adopts_a_running_attempt(state_dir):
    async def test(core, make):
        first = await make()
        await first.apply(sh("echo up; until [ -e go ]; do sleep 0.01; done; echo done"))
        await core.until(lambda: core.text() == "up\n")
        await first.close()
        (state_dir / "attempts" / "j1.1" / "work" / "go").touch()
        second = await make()
        assert [o.incarnation for o in second.owned()] == [core.claimed[KEY]]
        assert (await core.report()).exit_code == 0
        assert core.text() == "up\ndone\n"

    run(state_dir, test)


@pytest.mark.parametrize("away", [False, True], ids=["agent there", "agent away"])
def test_a_killed_supervisor_is_told_as_such_and_leaves_nothing(state_dir, away):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("setsid sh -c 'exec sleep 1000' & echo $!; sleep 1000"))
        await core.until(lambda: core.text())
        supervisor = json.loads((state_dir / "attempts" / "j1.1" / "supervisor.json").read_text())
        if away:
            await executor.close()
        os.kill(supervisor["pid"], signal.SIGKILL)
        if away:
            await make()
        report = await core.report()
        assert report.reason.code == "supervisor_killed"
        assert report.exit_code is None
        assert [r["type"] for r in core.records()] == ["stream", "gap", "exit"]
        assert core.records()[1]["code"] == "supervisor_killed"
        assert runner_processes.start_time(int(core.text())) is None

    run(state_dir, test)


def test_an_end_that_cannot_be_written_down_is_tried_again(state_dir, caplog):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("echo up; sleep 1000"))
        await core.until(lambda: core.text())
        folder = state_dir / "attempts" / "j1.1"
        in_the_way = folder / f"exit.json.{os.getpid()}"
        in_the_way.mkdir()
        os.kill(json.loads((folder / "supervisor.json").read_text())["pid"], signal.SIGKILL)
        async with asyncio.timeout(30):
            while "can't be seen through" not in caplog.text:  # noqa: ASYNC110 -- a log announces nothing
                await asyncio.sleep(0.02)
        in_the_way.rmdir()
        assert (await core.report()).reason.code == "supervisor_killed"
        assert [r["type"] for r in core.records()] == ["stream", "gap", "exit"]

    run(state_dir, test)


def test_a_restart_of_the_machine_is_told_as_such(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh("echo up; sleep 1000"))
        await core.until(lambda: core.text() == "up\n")
        await executor.close()
        path = state_dir / "attempts" / "j1.1" / "supervisor.json"
        supervisor = json.loads(path.read_text())
        os.kill(supervisor["pid"], signal.SIGKILL)
        path.write_text(json.dumps(supervisor | {"boot_id": "of another boot"}))
        await make()
        assert (await core.report()).reason.code == "machine_restarted"

    run(state_dir, test)


def test_simulated_gpus_are_assigned_and_say_so(state_dir):
    async def test(core, make):
        executor = await make()
        capacity = await executor.capacity()
        assert [gpu.model for gpu in capacity.gpus] == ["Fake GPU (simulated)"] * 2
        assert all(gpu.fake for gpu in capacity.gpus)
        uuid = capacity.gpus[1].uuid
        await executor.apply(sh("echo $CUDA_VISIBLE_DEVICES $JUPYTER_GPU_FAKE; sleep 1000", uuids=[uuid]))
        await core.until(lambda: core.text())
        assert core.text() == f"{uuid} 1\n"
        assert core.records()[0]["name"] == "stderr"
        other = AttemptKey("j2", 1)
        await executor.apply(sh("true", key=other, uuids=[uuid]))
        assert "still held" in (await core.report(other)).reason.message
        await executor.forget(KEY)

    run(state_dir, test, fake_gpus=2)


def test_a_job_without_gpus_sees_none(state_dir):
    async def test(core, make):
        executor = await make()
        await executor.apply(sh('echo "[${CUDA_VISIBLE_DEVICES-unset}]"'))
        await core.report()
        assert core.text() == "[]\n"

    run(state_dir, test)


def test_a_machine_without_nvml_says_why_it_has_no_gpus():
    capacity = gpus.capacity(0, set)
    assert capacity.cpus > 0
    assert capacity.memory > 0
    assert bool(capacity.gpus) != bool(capacity.gpu_note)


def test_a_long_state_directory_gets_a_short_socket_path(tmp_path):
    deep = tmp_path / ("d" * 120)
    assert len(str(socket_path(deep))) < 108
    assert socket_path(deep) == socket_path(deep)
