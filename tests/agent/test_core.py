"""What executors may rely on while no control service is there, and the one that the agent's state keeps apart."""

from __future__ import annotations

import asyncio

import pytest
from jupyter_gpu_agent.core import Core
from jupyter_gpu_agent.executors import AttemptKey, OutOfSequence

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.wire.messages import Appended, AppendRefused
from jupyter_gpu_platform.wire.session import Got
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
