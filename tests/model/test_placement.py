from __future__ import annotations

from typing import Any

from jupyter_gpu_platform.model.board import Board, plan
from jupyter_gpu_platform.model.jobs import Cell, Command, Job, JobSpec, ObjectRef
from jupyter_gpu_platform.model.placement import ClusterView, Held, needs
from jupyter_gpu_platform.model.resources import Capacity, Gpu, Resources


def job(name: str, gpus: int, *, priority: int = 0, created: float = 1.0, **resources: Any) -> Job:
    needs = Resources(gpus=gpus, **resources)
    spec = JobSpec(source=Command(argv=("true",)), resources=needs, priority=priority)
    return Job(id=name, spec=spec, owner="a", project="p", organisation="o", created=created)


def cluster(count: int, *, busy: int = 0, **state: Any) -> ClusterView:
    gpus = tuple(
        Gpu(index=n, uuid=f"g{n}", model="T4", memory=2**34, busy_by="pid 7" if n < busy else "") for n in range(count)
    )
    return ClusterView(name="east", capacity=Capacity(gpus=gpus, cpus=4, memory=2**34), **({"reachable": True} | state))


def test_gpus_are_given_once() -> None:
    made = plan([job("a", 2), job("b", 2, created=2.0)], [cluster(4)], [])
    assert [set(one.gpus) for one in made.placed] == [{"g0", "g1"}, {"g2", "g3"}]


def test_of_jobs_that_ask_alike_those_that_are_placed_are_not_told_to_wait() -> None:
    board = Board()
    board.put_cluster(cluster(2))
    for name in ("a", "b", "c"):
        board.put_job(job(name, 1, created=float(ord(name))))
    for refresh in (False, True):
        made = board.plan(10, refresh=refresh)
        assert [one.job for one in made.placed] == ["a", "b"]
        assert set(made.waiting) <= {"c"}


def test_held_and_busy_gpus_are_not_given() -> None:
    held = [Held(cluster="east", resources=Resources(gpus=1), gpus=("g1",))]
    made = plan([job("a", 2)], [cluster(3, busy=1)], held)
    assert made.waiting["a"].code == "gpus_busy"
    assert made.waiting["a"].details["free"] == 1


def test_the_higher_priority_goes_first() -> None:
    made = plan([job("a", 1), job("b", 1, priority=5, created=2.0)], [cluster(1)], [])
    assert [one.job for one in made.placed] == ["b"]


def test_a_small_gpu_job_does_not_pass_a_big_one_but_a_cpu_job_does() -> None:
    held = [Held(cluster="east", resources=Resources(gpus=1), gpus=("g0",))]
    made = plan([job("big", 2), job("small", 1, created=2.0), job("cpu", 0, created=3.0)], [cluster(2)], held)
    assert [one.job for one in made.placed] == ["cpu"]
    assert made.waiting["small"].details["ahead"] == 1


def test_an_unreachable_or_drained_cluster_takes_nothing() -> None:
    assert plan([job("a", 1)], [cluster(1, reachable=False)], []).waiting["a"].code == "cluster_away"
    assert "closed" in plan([job("a", 1)], [cluster(1, drained=True)], []).waiting["a"].message


def test_what_never_fits_says_so() -> None:
    assert plan([job("a", 3)], [cluster(2)], []).waiting["a"].code == "gpu_model"
    assert plan([job("a", 1)], [cluster(0)], []).waiting["a"].code == "no_gpu"
    assert plan([job("a", 0, cpus=9)], [cluster(0)], []).waiting["a"].code == "cpus"
    assert plan([job("a", 0)], [], []).waiting["a"].code == "no_cluster"


def test_values_go_only_where_the_agent_can_bring_them() -> None:
    spec = JobSpec(source=Cell(code="1", values=ObjectRef(digest="0" * 64, size=1)))
    wanting = Job(id="a", spec=spec, owner="a", project="p", organisation="o", created=1.0)
    old, new = cluster(0), ClusterView(name="west", capacity=Capacity(), reachable=True, capabilities=("objects",))
    reason = plan([wanting], [old], []).waiting["a"]
    assert reason.code == "agent_too_old"
    assert "update it" in reason.message
    assert [one.cluster for one in plan([wanting], [old, new], []).placed] == ["west"]
    assert [one.cluster for one in plan([job("b", 0)], [old], []).placed] == ["east"]


def test_a_cell_that_only_brings_values_back_needs_it_too() -> None:
    assert needs(JobSpec(source=Cell(code="x = 1", out=("x",)))) == {"objects"}
    assert needs(JobSpec(source=Cell(code="1"))) == set()


def test_ten_tenths_of_a_core_are_a_core() -> None:
    jobs = [job(f"j{n}", 0, cpus=0.1, created=float(n)) for n in range(41)]
    made = plan(jobs, [cluster(0)], [])
    assert len(made.placed) == 40
    assert [reason.details["free"] for reason in made.waiting.values()] == [0.0]


def machines(*sizes: int) -> ClusterView:
    """A cluster of machines with so many GPUs each."""
    gpus = [
        Gpu(index=0, uuid=f"m{machine}/{n}", model="T4", memory=2**34, node=f"m{machine}")
        for machine, size in enumerate(sizes)
        for n in range(size)
    ]
    return ClusterView(name="east", capacity=Capacity(gpus=tuple(gpus), cpus=4, memory=2**34), reachable=True)


def test_the_gpus_of_a_job_are_in_one_machine_and_the_fullest_is_filled_first() -> None:
    made = plan([job("a", 2), job("b", 4, created=2.0)], [machines(4, 2)], [])
    assert [sorted(one.gpus) for one in made.placed] == [["m1/0", "m1/1"], [f"m0/{n}" for n in range(4)]]


def test_gpus_that_are_free_in_several_machines_are_not_enough() -> None:
    held = [Held(cluster="east", resources=Resources(gpus=1), gpus=(f"m{n}/0",)) for n in range(2)]
    made = plan([job("a", 2)], [machines(2, 2)], held)
    assert made.waiting["a"].code == "gpus_scattered"
    assert made.waiting["a"].details["most"] == 1
    assert "2 GPUs free, but at most 1 in one machine, 2 asked for" in made.waiting["a"].message


def test_more_gpus_than_any_machine_has_never_fit() -> None:
    made = plan([job("a", 3)], [machines(2, 2)], [])
    assert made.waiting["a"].code == "gpus_per_machine"
