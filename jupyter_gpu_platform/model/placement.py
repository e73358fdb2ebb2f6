"""What a job asks of a cluster, what a cluster has left, and why the one doesn't fit the other. Pure.

`model.board` decides by it which job goes where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from .jobs import Cell, JobSpec, Reason
from .resources import Capacity, Gpu, Resources, fits_gpu


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster as the planner sees it."""

    name: str
    capacity: Capacity
    #: its agent is connected to some replica
    reachable: bool
    #: its admin has closed it for new work
    drained: bool = False
    #: what its agent can do beyond the protocol's first form
    capabilities: tuple[str, ...] = ()


class Held(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one open attempt holds of a cluster."""

    cluster: str
    resources: Resources
    #: GPUs by UUID
    gpus: tuple[str, ...] = ()


#: so many clusters are named in a reason
_NAMED = 10


class Placement(NamedTuple):
    job: str
    cluster: str
    #: the GPUs it gets, by UUID
    gpus: tuple[str, ...]


class Plan(NamedTuple):
    placed: tuple[Placement, ...]
    waiting: Mapping[str, Reason]
    #: the limit was reached: another look finds more
    more: bool = False


class Used:
    """What open attempts hold of one cluster."""

    def __init__(self) -> None:
        #: UUID → how many hold it; more than one only where a restored store gave it again
        self.gpus: dict[str, int] = {}
        self.cpus = 0.0
        self.memory = 0

    def add(self, held: Held, sign: int = 1) -> None:
        """Count an attempt in, or with ``sign=-1`` out again."""
        for uuid in held.gpus:
            self.gpus[uuid] = self.gpus.get(uuid, 0) + sign
            if not self.gpus[uuid]:
                del self.gpus[uuid]
        self.cpus = _cores(self.cpus + sign * (held.resources.cpus or 0))
        self.memory += sign * (held.resources.memory or 0)


def _cores(number: float) -> float:
    """Count cores in millionths: ten tenths are one."""
    return round(number, 6)


class Room:
    """What is left of one cluster while a plan is being made."""

    def __init__(self, view: ClusterView, used: Used) -> None:
        self.view = view
        self.gpus = [gpu for gpu in view.capacity.gpus if gpu.uuid not in used.gpus and not gpu.busy_by]
        self.cpus = _cores(view.capacity.cpus - used.cpus)
        self.memory = view.capacity.memory - used.memory

    def fitting(self, request: Resources) -> list[Gpu]:
        """GPUs that would do, the smallest first, so that big ones stay for those who need them."""
        return sorted((gpu for gpu in self.gpus if fits_gpu(request, gpu)), key=lambda gpu: (gpu.memory, gpu.index))

    def take(self, request: Resources) -> tuple[str, ...] | None:
        """Take what *request* needs and return the GPUs' UUIDs; nothing is taken where something lacks."""
        chosen = self._together(request)
        if len(chosen) < request.gpus or (request.cpus or 0) > self.cpus or (request.memory or 0) > self.memory:
            return None
        self.gpus = [gpu for gpu in self.gpus if gpu not in chosen]
        self.cpus = _cores(self.cpus - (request.cpus or 0))
        self.memory -= request.memory or 0
        return tuple(gpu.uuid for gpu in chosen)

    def _together(self, request: Resources) -> list[Gpu]:
        """Choose GPUs of one machine: the smallest that do, then where the fewest are left for others to share."""
        machines: dict[str, list[Gpu]] = {}
        for gpu in self.fitting(request) if request.gpus else ():
            machines.setdefault(gpu.node, []).append(gpu)
        able = [free for free in machines.values() if len(free) >= request.gpus]
        if not able:
            return []
        return min(able, key=lambda free: (free[request.gpus - 1].memory, len(free)))[: request.gpus]

    def lack(self, request: Resources) -> Reason | None:
        """Say why this cluster could never run *request*, even when empty; None where it could."""
        capacity = self.view.capacity
        have = [gpu for gpu in capacity.gpus if fits_gpu(request, gpu)]
        if request.gpus and not capacity.gpus:
            note = capacity.gpu_note or "it has no GPU"
            return _reason("no_gpu", f"{self.view.name}: {note}", cluster=self.view.name, asked=request.gpus)
        if len(have) < request.gpus:
            kinds = ", ".join(sorted({gpu.model for gpu in capacity.gpus}))
            which = _describe(request)
            text = f"{self.view.name} has {len(have)} of the {request.gpus} {which} asked for (its GPUs: {kinds})"
            return _reason("gpu_model", text, cluster=self.view.name, asked=request.gpus, fitting=len(have))
        if (most := _most_together(have)) < request.gpus:
            text = (
                f"{self.view.name} has at most {most} {_describe(request)} in one machine, {request.gpus} are asked for"
            )
            return _reason("gpus_per_machine", text, cluster=self.view.name, asked=request.gpus, most=most)
        if (request.cpus or 0) > capacity.cpus:
            text = f"{self.view.name} has {capacity.cpus:g} CPUs in all, {request.cpus:g} are asked for"
            return _reason("cpus", text, cluster=self.view.name, asked=request.cpus, total=capacity.cpus)
        if (request.memory or 0) > capacity.memory:
            text = f"{self.view.name} has {capacity.memory} bytes of memory in all, {request.memory} are asked for"
            return _reason("memory", text, cluster=self.view.name, asked=request.memory, total=capacity.memory)
        return None

    def shortage(self, request: Resources, ahead: int) -> Reason:
        """Say what is lacking just now."""
        name, fitting = self.view.name, len(self.fitting(request))
        queue = f"; {ahead} job{'s' * (ahead != 1)} ahead" if ahead else ""
        if fitting < request.gpus:
            total = sum(fits_gpu(request, gpu) for gpu in self.view.capacity.gpus)
            busy = [gpu.busy_by for gpu in self.view.capacity.gpus if gpu.busy_by and fits_gpu(request, gpu)]
            others = f" ({len(busy)} used by other processes: {busy[0]})" if busy else ""
            text = f"{name}: {fitting} of {total} {_describe(request)} free, {request.gpus} asked for{others}{queue}"
            return _reason("gpus_busy", text, cluster=name, asked=request.gpus, free=fitting, total=total, ahead=ahead)
        if (most := _most_together(self.fitting(request))) < request.gpus:
            free = f"{fitting} {_describe(request)} free, but at most {most} in one machine"
            text = f"{name}: {free}, {request.gpus} asked for{queue}"
            return _reason("gpus_scattered", text, cluster=name, asked=request.gpus, most=most, ahead=ahead)
        if (request.cpus or 0) > self.cpus:
            text = f"{name}: {self.cpus:g} CPUs free, {request.cpus:g} asked for{queue}"
            return _reason("cpus_busy", text, cluster=name, asked=request.cpus, free=self.cpus, ahead=ahead)
        text = f"{name}: {self.memory} bytes of memory free, {request.memory} asked for{queue}"
        return _reason("memory_busy", text, cluster=name, asked=request.memory, free=self.memory, ahead=ahead)


def _most_together(gpus: Iterable[Gpu]) -> int:
    """Count the GPUs of the machine that has the most of them."""
    return max(Counter(gpu.node for gpu in gpus).values(), default=0)


def lack(request: Resources, cluster: ClusterView) -> Reason | None:
    """Say why *cluster* could never run *request*, even when empty; None where it could."""
    return Room(cluster, Used()).lack(request)


def _reason(code: str, message: str, **details: str | int | float | bool | None) -> Reason:
    return Reason(code=code, message=message, details=details)


def _describe(request: Resources) -> str:
    model = f"{request.gpu_model} " if request.gpu_model else ""
    size = f" of ≥ {request.gpu_memory / 2**30:g} GiB" if request.gpu_memory else ""
    return f"{model}GPUs{size}"


def needs(spec: JobSpec) -> set[str]:
    """Return the capabilities without which an agent must not be given this."""
    values = spec.objects or (isinstance(spec.source, Cell) and spec.source.out)
    return {"objects"} if values else set()


class Demand(NamedTuple):
    """All that placement asks of a job: jobs with the same demand share one answer."""

    resources: Resources
    #: a cluster's name; any when None
    target: str | None
    needs: frozenset[str]

    @classmethod
    def of(cls, spec: JobSpec) -> Demand:
        return cls(spec.resources, spec.target.cluster, frozenset(needs(spec)))


def rooms_for(demand: Demand, rooms: Mapping[str, Room]) -> list[Room] | Reason:
    """Return the clusters that can take such a job, full or not, or say why none can."""
    request, target = demand.resources, demand.target
    if target is not None and target not in rooms:
        few = sorted(rooms)[:_NAMED]
        names = (", ".join(few) or "none") + (f" and {len(rooms) - _NAMED} more" if len(rooms) > _NAMED else "")
        return _reason("no_cluster", f"there is no cluster named {target!r} (joined: {names})", cluster=target)
    candidates = [rooms[target]] if target is not None else list(rooms.values())
    if not candidates:
        return _reason("no_cluster", "no cluster has joined yet")
    lacks = [room.lack(request) for room in candidates]
    able = [room for room, lack in zip(candidates, lacks, strict=True) if lack is None]
    if not able:
        return next(lack for lack in lacks if lack is not None)
    understood = [room for room in able if demand.needs <= set(room.view.capabilities)]
    if not understood:
        text = f"the agent of cluster {able[0].view.name} can't bring values into jobs and out of them: update it"
        return _reason("agent_too_old", text, cluster=able[0].view.name)
    open_ = [room for room in understood if room.view.reachable and not room.view.drained]
    if not open_:
        room = understood[0]
        state = "closed for new jobs by its admin" if room.view.drained else "not connected"
        return _reason("cluster_away", f"cluster {room.view.name} is {state}", cluster=room.view.name)
    return open_
