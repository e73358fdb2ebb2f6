"""The simulated executor keeps the rules of `executors`, and two of them draw the same courses from the same seed."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from jupyter_gpu_agent.core import Core
from jupyter_gpu_agent.executors import AttemptKey, ExecutorSettings
from jupyter_gpu_agent.simulated.executor import SimulatedExecutor
from jupyter_gpu_agent.simulated.timings import Timings

from jupyter_gpu_platform.errors import InvalidRequest
from jupyter_gpu_platform.model.jobs import Command, JobSpec
from jupyter_gpu_platform.wire.messages import Desired

from ..memory_core import KEY, MemoryCore

QUICK = {"start_delay": "0", "run_time": "0", "records": "3", "failures": "0"}
LONG = QUICK | {"run_time": "1000"}


def simulate(test, options=QUICK, fake_gpus=0, core=None):
    """Run *test(core, executor)*."""

    async def main():
        held = core or MemoryCore()
        executor = SimulatedExecutor(held, ExecutorSettings(state_dir=None, fake_gpus=fake_gpus, options=options))
        await executor.start()
        try:
            await test(held, executor)
        finally:
            await executor.close()

    asyncio.run(main())


def desired(key=KEY, uuids=()):
    spec = JobSpec(source=Command(argv=("true",)))
    return Desired(job=key.job, attempt=key.attempt, generation=1, action="run", spec=spec, gpus=tuple(uuids))


def test_an_attempt_runs_is_reported_and_forgotten():
    async def test(core, executor):
        await executor.apply(desired())
        report = await core.report()
        assert (report.exit_code, report.reason) == (0, None)
        assert report.incarnation == core.claimed[KEY]
        assert [record["type"] for record in core.records()] == ["stream"] * 3 + ["exit"]
        assert core.text().startswith("line 1 ")
        assert [(o.job, o.attempt, o.incarnation) for o in executor.owned()] == [("j1", 1, report.incarnation)]
        await executor.apply(desired())
        await executor.forget(KEY)
        await executor.forget(KEY)
        assert executor.owned() == []

    simulate(test)


def test_the_end_is_reported_after_the_last_record_is_durable():
    class Slow(MemoryCore):
        reported_at = None

        async def ended(self, report):
            self.reported_at = self.durable_now
            await super().ended(report)

        durable_now = 1

        def durable(self, key):
            return min(self.durable_now, super().durable(key))

    async def test(core, executor):
        await executor.apply(desired())
        await core.until(lambda: len(core.lines.get(KEY, ())) == 4)
        assert core.reports == {}
        async with core.changed:
            core.durable_now = 5
            core.changed.notify_all()
        await core.report()
        assert core.reported_at == 5

    simulate(test, core=Slow())


def test_a_refused_claim_writes_nothing():
    async def test(core, executor):
        core.grant = False
        await executor.apply(desired())
        assert (await core.report()).reason.code == "claim_refused"
        assert core.lines == {}

    simulate(test)


def test_a_stop_ends_it_before_its_time():
    async def test(core, executor):
        await executor.apply(desired())
        await core.until(lambda: KEY in core.claimed)
        await core.want("stop", grace=5.0)
        await executor.stop(KEY, 5.0)
        assert (await core.report()).reason.code == "stopped"

    simulate(test, LONG)


def test_a_stop_before_the_claim_claims_nothing():
    async def test(core, executor):
        await executor.apply(desired())
        await core.want("stop")
        report = await core.report()
        assert (report.exit_code, report.reason.code) == (None, "stopped")
        assert core.claimed == {}

    simulate(test, QUICK | {"start_delay": "1000"})


def test_forgetting_ends_what_runs():
    async def test(core, executor):
        await executor.apply(desired())
        await core.until(lambda: KEY in core.claimed)
        await executor.forget(KEY)
        assert executor.owned() == []
        assert core.reports == {}

    simulate(test, LONG)


def test_a_fenced_attempt_reports_nothing():
    async def test(core, executor):
        core.is_fenced.add(KEY)
        await executor.apply(desired())
        (running,) = (task for task in asyncio.all_tasks() if task.get_name() == "attempt j1.1")
        await running
        assert core.reports == {}
        assert core.lines == {}

    simulate(test)


def test_a_gpu_is_given_to_one_attempt_at_a_time():
    async def test(core, executor):
        capacity = await executor.capacity()
        assert [gpu.fake for gpu in capacity.gpus] == [True, True]
        await executor.apply(desired(uuids=[capacity.gpus[1].uuid]))
        second, third = AttemptKey("j2", 1), AttemptKey("j3", 1)
        await executor.apply(desired(second, [capacity.gpus[1].uuid]))
        assert "still held" in (await core.report(second)).reason.message
        await executor.apply(desired(third, ["GPU-of-another-cluster"]))
        report = await core.report(third)
        assert (report.reason.code, report.exit_code) == ("start_failed", None)

    simulate(test, LONG, fake_gpus=2)


def test_the_same_seed_draws_the_same_courses():
    def draw(seed):
        timings = Timings.read({"run_time": "1:9", "records": "0:200", "failures": "0.25", "seed": seed})
        return [timings.course(AttemptKey(f"j{number}", 1)) for number in range(1000)]

    first = draw("7")
    assert draw("7") == first
    assert draw("8") != first
    assert all(1 <= course.run_time <= 9 and 0 <= course.records <= 200 for course in first)
    assert 150 < Counter(course.exit_code for course in first)[1] < 350


@pytest.mark.parametrize(("options", "named"), [({"speed": "9"}, "speed"), ({"run_time": "2:1"}, "run_time")])
def test_an_option_that_is_none_is_refused_by_name(options, named):
    with pytest.raises(InvalidRequest) as caught:
        SimulatedExecutor(Core(), ExecutorSettings(state_dir=None, options=options))
    assert named in str(caught.value)
