"""What executors may rely on while no control service is there, and the one that the agent's state keeps apart."""

from __future__ import annotations

import asyncio

import pytest
from jupyter_gpu_agent.core import Core
from jupyter_gpu_agent.executors import AttemptKey, OutOfSequence
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Capacity
from jupyter_gpu_platform.wire.messages import Appended, AppendRefused, Desired, Owned
from jupyter_gpu_platform.wire.session import Changed, Got
from jupyter_gpu_platform.wire.streams import WINDOW

pytestmark = pytest.mark.anyio

KEY = StreamKey("j1", 1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_full_window_holds_the_runner_back_until_something_is_durable() -> None:
    core = Core()
    await core.append(KEY, "i", 1, 1, b"x" * WINDOW + b"\n")
    waiting = asyncio.create_task(core.append(KEY, "i", 2, 1, b"y\n"))
    await asyncio.sleep(0)
    assert not waiting.done()
    core.streams.receive(answer := Appended(job="j1", attempt=1, next_seq=2, credit=WINDOW))
    core.take(Got(answer))
    await waiting
    assert (core.durable(KEY), core.expected(KEY)) == (2, 3)


async def test_a_hole_names_where_to_go_on() -> None:
    core = Core()
    await core.append(KEY, "i", 1, 1, b"x\n")
    with pytest.raises(OutOfSequence) as caught:
        await core.append(KEY, "i", 3, 1, b"z\n")
    assert caught.value.expected == 2


async def test_a_fenced_attempt_is_told_so() -> None:
    core = Core()
    await core.append(KEY, "i", 1, 1, b"x\n")
    core.streams.receive(AppendRefused(job="j1", attempt=1, code="claim_lost", message="fenced"))
    assert core.fenced(AttemptKey("j1", 1))
    with pytest.raises(errors.ClaimLost):
        await core.append(KEY, "i", 2, 1, b"y\n")


async def test_nothing_is_wanted_but_to_run_until_the_service_speaks() -> None:
    wanted = await Core().wait_wanted(KEY, 0, 1, 0, 0.01)
    assert (wanted.generation, wanted.action, wanted.durable) == (0, "run", 1)


async def test_a_reporter_that_stops_waiting_takes_nothing_back() -> None:
    core = Core()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(core.ended(Report(job="j1", attempt=1, incarnation="i")), 0.01)
    assert core.session.unacknowledged == 1


class _Holding:
    """An executor that holds some attempts and is asked to do nothing."""

    def __init__(self, *held: Owned) -> None:
        self._held = list(held)

    async def start(self) -> None:
        """Nothing to adopt."""

    async def close(self) -> None:
        """Nothing to let go."""

    def owned(self) -> list[Owned]:
        return self._held

    async def capacity(self) -> Capacity:
        return Capacity()


async def test_what_runs_as_it_should_costs_no_task_after_a_reconnect_and_what_is_gone_is_reported() -> None:
    core = Core()
    await core.start(_Holding(Owned(job="j1", attempt=1, incarnation="i")))  # type: ignore[arg-type]  # it is asked for no more
    tasks = asyncio.all_tasks()
    runs = Desired(job="j1", attempt=1, generation=1, action="run", incarnation="i")
    core.take(Changed(revision=7, desired=(runs,)))
    assert asyncio.all_tasks() == tasks
    assert (await core.wait_wanted(KEY, 0, 1, 0, 5.0)).generation == 1
    core.take(Changed(revision=8, desired=(replace(runs, job="j2"),)))
    (made,) = asyncio.all_tasks() - tasks
    await made
    assert core.session.unacknowledged == 1
    await core.close()
