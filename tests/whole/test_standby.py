"""On the local platform the second cell finds a runner that waits, and everything about it is as about the first."""

from __future__ import annotations

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Cell, JobSpec, Phase

from .conftest import AGENT, Place, eventually

WAITS = ("supervise", "--standby")
CODE = "import os, sys\nprint(os.environ['JGP_ATTEMPT'], os.environ['LETTER'], sys.executable)\n1 / 0"


def run(client: Client, letter: str) -> tuple[list[dict[str, object]], int]:
    """Run the cell; return what it showed, without times, and the process that supervised it."""
    job = client.submit(JobSpec(source=Cell(code=CODE), env={"LETTER": letter}))
    ended = client.wait(job.id)
    assert (ended.phase, ended.exit_code, ended.attempt) == (Phase.FAILED, 1, 1)
    assert ended.reason is not None
    assert ended.reason.details["ename"] == "ZeroDivisionError"
    records = [{**record, "time": 0} for record in client.follow(job.id)]
    (attempt,) = client.attempts(job.id)
    return records, int(attempt.incarnation.split("-")[1])


def test_the_second_cell_runs_in_what_waited_and_shows_the_same(client: Client, place: Place) -> None:
    cold, _ = run(client, "a")
    (waiting,) = eventually(lambda: place.processes(*WAITS), "a runner on standby")
    warm, supervisor = run(client, "a")
    assert supervisor == waiting.pid
    assert warm == cold
    eventually(lambda: [p for p in place.processes(*WAITS) if p.pid != supervisor], "the next runner on standby")


def test_it_goes_with_the_agent_and_the_next_agent_makes_its_own(client: Client, place: Place) -> None:
    run(client, "a")
    (waiting,) = eventually(lambda: place.processes(*WAITS), "a runner on standby")
    assert place.kill(*AGENT) == 1
    eventually(lambda: not waiting.is_running() or waiting.status() == "zombie", "it to leave")
    _, supervisor = run(client, "b")
    assert supervisor != waiting.pid
    eventually(lambda: place.processes(*WAITS), "a runner of the next agent")
