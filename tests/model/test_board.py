"""A board that was kept in step decides as one that is told everything anew."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform.model import lifecycle
from jupyter_gpu_platform.model.board import Board
from jupyter_gpu_platform.model.jobs import Attempt, Command, Job, JobSpec, Phase, Target
from jupyter_gpu_platform.model.placement import ClusterView, Plan
from jupyter_gpu_platform.model.resources import Capacity, Gpu, Resources

MANY = 1000


class World:
    """Jobs, attempts and clusters, with a board that hears of each change."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.attempts: dict[str, Attempt] = {}
        self.clusters: dict[str, ClusterView] = {}
        self.board = Board()

    def put(self, job: Job, attempt: Attempt | None = None) -> None:
        self.jobs[job.id] = job
        self.board.put_job(job)
        if attempt is not None:
            self.attempts[job.id] = attempt
            self.board.put_attempt(attempt)

    def put_cluster(self, view: ClusterView) -> None:
        self.clusters[view.name] = view
        self.board.put_cluster(view)

    def anew(self) -> Board:
        board = Board()
        for view in self.clusters.values():
            board.put_cluster(view)
        for job in self.jobs.values():
            board.put_job(job)
        for attempt in self.attempts.values():
            board.put_attempt(attempt)
        return board

    def carry_out(self, plan: Plan) -> None:
        for place in plan.placed:
            rows = lifecycle.place(self.jobs[place.job], cluster=place.cluster, now=1.0, gpus=place.gpus)
            self.put(rows.job, rows.attempt)
        for job_id, reason in plan.waiting.items():
            self.put(lifecycle.wait(self.jobs[job_id], reason))


def _cluster(name: str, gpus: int, *, reachable: bool = True) -> ClusterView:
    owned = tuple(Gpu(index=n, uuid=f"{name}{n}", model="T4", memory=2**34) for n in range(gpus))
    return ClusterView(name=name, capacity=Capacity(gpus=owned, cpus=8, memory=2**34), reachable=reachable)


def _job(chance: random.Random, number: int) -> Job:
    wanted = Resources(gpus=chance.choice((0, 0, 1, 2)), cpus=chance.choice((None, 1.0, 3.0)))
    spec = JobSpec(
        source=Command(argv=("true",)),
        resources=wanted,
        priority=chance.choice((0, 0, 5)),
        target=Target(cluster=chance.choice((None, None, "a", "gone"))),
    )
    return Job(id=f"j{number:04}", spec=spec, owner="o", project="p", organisation="o", created=float(number))


@pytest.mark.parametrize("seed", range(20))
def test_a_board_in_step_decides_as_a_new_one(seed: int) -> None:
    chance = random.Random(seed)
    world = World()
    for name in "abc":
        world.put_cluster(_cluster(name, chance.randrange(4)))
    for number in range(80):
        world.put(_job(chance, number))
        if chance.random() < 0.2:
            name = chance.choice("abc")
            world.put_cluster(_cluster(name, chance.randrange(4), reachable=chance.random() < 0.7))
        open_ = [job for job in world.jobs.values() if job.phase is Phase.STARTING]
        if open_ and chance.random() < 0.6:
            job = chance.choice(open_)
            report = lifecycle.Report(job=job.id, attempt=1, incarnation="", exit_code=1)
            ended = lifecycle.end(job, world.attempts[job.id], report, cluster=str(job.cluster), now=2.0)
            world.put(ended.job, ended.attempt)
        kept, anew = world.board.plan(MANY, refresh=True), world.anew().plan(MANY, refresh=True)
        assert kept.placed == anew.placed
        assert kept.waiting == anew.waiting
        if chance.random() < 0.7:
            world.carry_out(kept)
    while (kept := world.board.plan(MANY)).placed or kept.waiting:
        world.carry_out(kept)
    assert all(job.reason for job in world.jobs.values() if job.phase is Phase.QUEUED)


def test_a_limited_look_says_that_there_is_more_and_comes_to_the_same_end() -> None:
    limited, whole = World(), World()
    for world in (limited, whole):
        world.put_cluster(_cluster("a", 5))
        for number in range(30):
            job = _job(random.Random(7), number)
            world.put(replace(job, spec=replace(job.spec, resources=Resources(gpus=1), target=Target())))
    while (plan := limited.board.plan(2)).more:
        assert len(plan.placed) <= 2
        assert len(plan.waiting) <= 2
        limited.carry_out(plan)
    limited.carry_out(plan)
    whole.carry_out(whole.board.plan(MANY))
    assert {j.id: (j.phase, j.reason and j.reason.code) for j in limited.jobs.values()} == {
        j.id: (j.phase, j.reason and j.reason.code) for j in whole.jobs.values()
    }
