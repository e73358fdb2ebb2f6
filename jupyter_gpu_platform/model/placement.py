"""Which queued job goes to which cluster, and why the others wait. Pure: the planner reads, asks here, and writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from .jobs import Cell, Job, JobSpec, Reason
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


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What one open attempt holds of a cluster."""

    cluster: str
    resources: Resources
    #: GPUs by UUID
    gpus: tuple[str, ...] = ()


class Placement(NamedTuple):
    job: str
    cluster: str
    #: the GPUs it gets, by UUID
    gpus: tuple[str, ...]


class Plan(NamedTuple):
    placed: tuple[Placement, ...]
    waiting: Mapping[str, Reason]


class _Room:
    """What is left of one cluster while a plan is being made."""

    def __init__(self, view: ClusterView, held: Iterable[Held]) -> None:
        self.view = view
        mine = [hold for hold in held if hold.cluster == view.name]
        taken = {uuid for hold in mine for uuid in hold.gpus}
        self.gpus = [gpu for gpu in view.capacity.gpus if gpu.uuid not in taken and not gpu.busy_by]
        self.cpus = view.capacity.cpus - sum(hold.resources.cpus or 0 for hold in mine)
        self.memory = view.capacity.memory - sum(hold.resources.memory or 0 for hold in mine)

    def fitting(self, request: Resources) -> list[Gpu]:
        """GPUs that would do, the smallest first, so that big ones stay for those who need them."""
        return sorted((gpu for gpu in self.gpus if fits_gpu(request, gpu)), key=lambda gpu: (gpu.memory, gpu.index))

    def take(self, request: Resources) -> tuple[str, ...] | None:
        """Take what *request* needs and return the GPUs' UUIDs; nothing is taken where something lacks."""
        chosen = self.fitting(request)[: request.gpus]
        if len(chosen) < request.gpus or (request.cpus or 0) > self.cpus or (request.memory or 0) > self.memory:
            return None
        self.gpus = [gpu for gpu in self.gpus if gpu not in chosen]
        self.cpus -= request.cpus or 0
        self.memory -= request.memory or 0
        return tuple(gpu.uuid for gpu in chosen)

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
        if (request.cpus or 0) > self.cpus:
            text = f"{name}: {self.cpus:g} CPUs free, {request.cpus:g} asked for{queue}"
            return _reason("cpus_busy", text, cluster=name, asked=request.cpus, free=self.cpus, ahead=ahead)
        text = f"{name}: {self.memory} bytes of memory free, {request.memory} asked for{queue}"
        return _reason("memory_busy", text, cluster=name, asked=request.memory, free=self.memory, ahead=ahead)


def lack(request: Resources, cluster: ClusterView) -> Reason | None:
    """Say why *cluster* could never run *request*, even when empty; None where it could."""
    return _Room(cluster, ()).lack(request)


def _reason(code: str, message: str, **details: str | int | float | bool | None) -> Reason:
    return Reason(code=code, message=message, details=details)


def _describe(request: Resources) -> str:
    model = f"{request.gpu_model} " if request.gpu_model else ""
    size = f" of ≥ {request.gpu_memory / 2**30:g} GiB" if request.gpu_memory else ""
    return f"{model}GPUs{size}"


def plan(queued: Sequence[Job], clusters: Sequence[ClusterView], held: Sequence[Held]) -> Plan:
    """Place what fits and give each other job its reason.

    Jobs are taken by priority, then age. A job that doesn't fit now is passed over by smaller ones behind it only
    where it could not use what they take: on a cluster where it waits for GPUs, later jobs wait behind it.

    :param queued: jobs in phase queued.
    :param held: what open attempts hold; an unreachable one holds on.
    """
    rooms = {view.name: _Room(view, held) for view in clusters}
    placed: list[Placement] = []
    waiting: dict[str, Reason] = {}
    #: cluster → GPU jobs that already wait for it
    blocked: dict[str, int] = {}
    for job in sorted(queued, key=lambda job: (-job.spec.priority, job.created, job.id)):
        placement = _place(job, rooms, blocked)
        if isinstance(placement, Placement):
            placed.append(placement)
        else:
            waiting[job.id] = placement
    return Plan(tuple(placed), waiting)


def needs(spec: JobSpec) -> set[str]:
    """Return the capabilities without which an agent must not be given this."""
    values = spec.objects or (isinstance(spec.source, Cell) and spec.source.out)
    return {"objects"} if values else set()


def _place(job: Job, rooms: Mapping[str, _Room], blocked: dict[str, int]) -> Placement | Reason:
    request, target = job.spec.resources, job.spec.target.cluster
    if target is not None and target not in rooms:
        names = ", ".join(sorted(rooms)) or "none"
        return _reason("no_cluster", f"there is no cluster named {target!r} (joined: {names})", cluster=target)
    candidates = [rooms[target]] if target is not None else list(rooms.values())
    if not candidates:
        return _reason("no_cluster", "no cluster has joined yet")
    lacks = [lack for room in candidates if (lack := room.lack(request)) is not None]
    able = [room for room in candidates if room.lack(request) is None]
    if not able:
        return lacks[0]
    understood = [room for room in able if needs(job.spec) <= set(room.view.capabilities)]
    if not understood:
        text = f"the agent of cluster {able[0].view.name} can't bring values into jobs and out of them: update it"
        return _reason("agent_too_old", text, cluster=able[0].view.name)
    able = understood
    open_ = [room for room in able if room.view.reachable and not room.view.drained]
    if not open_:
        room = able[0]
        state = "closed for new jobs by its admin" if room.view.drained else "not connected"
        return _reason("cluster_away", f"cluster {room.view.name} is {state}", cluster=room.view.name)
    for room in sorted(open_, key=lambda room: (-len(room.fitting(request)), room.view.name)):
        if request.gpus and blocked.get(room.view.name):
            continue
        gpus = room.take(request)
        if gpus is not None:
            return Placement(job.id, room.view.name, gpus)
    ahead = min(blocked.get(room.view.name, 0) for room in open_)
    reason = open_[0].shortage(request, ahead)
    if request.gpus:
        for room in open_:
            blocked[room.view.name] = blocked.get(room.view.name, 0) + 1
    return reason
