"""Which queued job goes to which cluster, and why the others wait. Pure: the planner reads, asks here, and writes.

A board keeps what the planner knows between two looks: queued jobs, in order, by what they ask for, and what open
attempts hold of each cluster. So a look costs what it decides, not what waits: a hundred thousand queued jobs that ask
for the same are one question. Within one look resources only become fewer, so when one of them doesn't fit, none does.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from .jobs import Attempt, AttemptState, Job, Phase, Reason
from .placement import ClusterView, Demand, Held, Placement, Plan, Room, Used, rooms_for
from .resources import Resources

#: By priority, then age.
Key = tuple[int, float, str]
_OPEN = (AttemptState.PLACED, AttemptState.RUNNING)
_NOTHING = Used()


class Queued(msgspec.Struct, frozen=True, gc=False):
    """A queued job, as far as a plan needs it: a hundred thousand of these are nothing for the collector to visit."""

    key: Key
    version: int
    demand: Demand
    #: code of the reason that it shows now
    code: str
    #: hash of that reason's text
    text: int
    #: when it has waited too long
    deadline: float | None


class _Group:
    """Queued jobs with the same demand."""

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.order: list[Key] = []
        #: the code that they should show, found by the last look
        self.code = ""
        #: those that show another
        self.untold: dict[str, None] = {}


class _Rooms(Mapping[str, Room]):
    """What is left of each cluster, looked at when it is first asked for: of a thousand, most are not."""

    def __init__(self, views: Mapping[str, ClusterView], used: Mapping[str, Used]) -> None:
        self._views = views
        self._used = used
        self._made: dict[str, Room] = {}

    def __getitem__(self, name: str) -> Room:
        if name not in self._made:
            self._made[name] = Room(self._views[name], self._used.get(name, _NOTHING))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


class _Look:
    """One look: what is left of each cluster, and who waits for it."""

    def __init__(self, rooms: Mapping[str, Room]) -> None:
        self.rooms = rooms
        #: demands that found no room: why, or the clusters that could take them
        self.failed: dict[Demand, Reason | list[Room]] = {}
        #: cluster → demands for GPUs that wait for it, each with the place in its order from which on
        self.blocked: dict[str, list[tuple[_Group, int]]] = {}


class _Choice:
    """The clusters that a demand may still get, the one with most fitting GPUs first."""

    def __init__(self, demand: Demand, open_: list[Room]) -> None:
        self._request = demand.resources
        self.open = open_
        self._heap = [(-len(room.fitting(self._request)), room.view.name, room) for room in open_]
        heapq.heapify(self._heap)

    def take(self, blocked: Mapping[str, object]) -> tuple[str, tuple[str, ...]] | None:
        while self._heap:
            free, name, room = self._heap[0]
            now = -len(room.fitting(self._request))
            if now != free:
                heapq.heapreplace(self._heap, (now, name, room))
                continue
            gpus = None if self._request.gpus and name in blocked else room.take(self._request)
            if gpus is not None:
                return name, gpus
            heapq.heappop(self._heap)
        return None


class Board:
    """Queued jobs, clusters, and what open attempts hold of them."""

    def __init__(self) -> None:
        self._views: dict[str, ClusterView] = {}
        self._used: dict[str, Used] = {}
        self._groups: dict[Demand, _Group] = {}
        self.queued: dict[str, Queued] = {}
        self._deadlines: dict[str, float] = {}
        #: what jobs that have not ended ask for: attempts don't say
        self._resources: dict[str, Resources] = {}
        self._held: dict[tuple[str, int], Held] = {}

    # --- what is so ----------------------------------------------------------------------------------------------

    def put_cluster(self, view: ClusterView) -> None:
        self._views[view.name] = view

    def remove_cluster(self, name: str) -> None:
        self._views.pop(name, None)

    def put_job(self, job: Job) -> None:
        """Take a job as it is now, in any phase."""
        self._leave_queue(job.id)
        if job.phase.ended:
            self._resources.pop(job.id, None)
            return
        self._resources[job.id] = job.spec.resources
        if job.phase is not Phase.QUEUED:
            return
        demand = Demand.of(job.spec)
        group = self._groups.get(demand)
        if group is None:
            group = self._groups[demand] = _Group(demand)
        limit = job.spec.limits.max_queue_seconds
        since = job.created if job.requeued is None else job.requeued
        entry = Queued(
            (-job.spec.priority, job.created, job.id),
            job.version,
            group.demand,  # one for all of them
            job.reason.code if job.reason else "",
            hash(job.reason.message) if job.reason else 0,
            None if limit is None else since + limit,
        )
        self.queued[job.id] = entry
        bisect.insort(group.order, entry.key)
        if not entry.code or entry.code != group.code:
            group.untold[job.id] = None
        if entry.deadline is not None:
            self._deadlines[job.id] = entry.deadline

    def remove_job(self, job_id: str) -> None:
        self._leave_queue(job_id)
        self._resources.pop(job_id, None)

    def put_attempt(self, attempt: Attempt) -> None:
        """Take an attempt as it is now; its job was told before it."""
        key = (attempt.job, attempt.number)
        held = self._held.pop(key, None)
        if held is not None:
            self._used[held.cluster].add(held, -1)
        resources = self._resources.get(attempt.job)
        if attempt.state in _OPEN and resources is not None:
            self.hold(key, Held(cluster=attempt.cluster, resources=resources, gpus=attempt.gpus))

    def hold(self, key: tuple[str, int], held: Held) -> None:
        self._held[key] = held
        self._used.setdefault(held.cluster, Used()).add(held)

    def _leave_queue(self, job_id: str) -> None:
        entry = self.queued.pop(job_id, None)
        if entry is None:
            return
        self._deadlines.pop(job_id, None)
        group = self._groups[entry.demand]
        del group.order[bisect.bisect_left(group.order, entry.key)]
        group.untold.pop(job_id, None)
        if not group.order:
            del self._groups[entry.demand]

    def expiring(self, now: float, limit: int) -> list[str]:
        """Return jobs that have waited too long."""
        late = [job_id for job_id, deadline in self._deadlines.items() if now >= deadline]
        return late[:limit]

    # --- what should be ------------------------------------------------------------------------------------------

    def plan(self, limit: int, held_back: Mapping[str, Reason] | None = None, *, refresh: bool = False) -> Plan:
        """Place what fits and give others their reason, each to *limit* jobs at most.

        Jobs are taken by priority, then age. A job that doesn't fit now is passed over by smaller ones behind it only
        where it could not use what they take: on a cluster where it waits for GPUs, later jobs wait behind it.

        :param held_back: jobs that must not be placed, and why.
        :param refresh: of the first *limit* jobs, also give reasons of which only the numbers changed.
        """
        apart = {job_id: why for job_id, why in (held_back or {}).items() if job_id in self.queued}
        look = _Look(_Rooms(self._views, self._used))
        placed, more = self._place(look, limit, apart)
        waiting: dict[str, Reason] = {}
        for job_id, why in apart.items():
            if self.queued[job_id].code != why.code and len(waiting) < limit:
                waiting[job_id] = why
        for demand in look.failed:
            self._tell(look, demand, waiting, limit, apart)
        if refresh:
            for job_id in self._first(limit):
                reason = apart.get(job_id) or self._reason(look, job_id)
                if reason is not None and hash(reason.message) != self.queued[job_id].text:
                    waiting.setdefault(job_id, reason)
        full = len(waiting) >= limit
        # Where a demand fits in part, those that were placed are among its jobs still: told to wait, they would be
        # written as queued over their placement.
        for place in placed:
            waiting.pop(place.job, None)
        return Plan(tuple(placed), waiting, more or full)

    def _place(self, look: _Look, limit: int, apart: Mapping[str, Reason]) -> tuple[list[Placement], bool]:
        placed: list[Placement] = []
        choices: dict[Demand, _Choice] = {}
        ahead = [(group.order[0], 0, demand) for demand, group in self._groups.items()]
        heapq.heapify(ahead)
        while ahead:
            if len(placed) >= limit:
                return placed, True
            key, index, demand = ahead[0]
            group = self._groups[demand]
            if key[2] not in apart:
                if demand not in choices:
                    found = rooms_for(demand, look.rooms)
                    if isinstance(found, Reason):
                        look.failed[demand] = found
                        heapq.heappop(ahead)
                        continue
                    choices[demand] = _Choice(demand, found)
                taken = choices[demand].take(look.blocked)
                if taken is None:
                    self._fail(look, demand, choices[demand].open, index)
                    heapq.heappop(ahead)
                    continue
                placed.append(Placement(key[2], *taken))
            if index + 1 < len(group.order):
                heapq.heapreplace(ahead, (group.order[index + 1], index + 1, demand))
            else:
                heapq.heappop(ahead)
        return placed, False

    def _fail(self, look: _Look, demand: Demand, open_: list[Room], index: int) -> None:
        look.failed[demand] = open_
        if demand.resources.gpus:
            for room in open_:
                look.blocked.setdefault(room.view.name, []).append((self._groups[demand], index))

    def _tell(
        self, look: _Look, demand: Demand, waiting: dict[str, Reason], limit: int, apart: Mapping[str, Reason]
    ) -> None:
        """Give those of a demand their reason whose own has another code."""
        group = self._groups[demand]
        first = self._reason(look, group.order[-1][2])
        if first is not None and first.code != group.code:
            group.code = first.code
            group.untold = {key[2]: None for key in group.order if self.queued[key[2]].code != first.code}
        for job_id in group.untold:
            if len(waiting) >= limit:
                return
            if job_id not in apart and (reason := self._reason(look, job_id)) is not None:
                waiting[job_id] = reason

    def _reason(self, look: _Look, job_id: str) -> Reason | None:
        """Why a job waits; None where this look came to no end with its demand."""
        entry = self.queued[job_id]
        failed = look.failed.get(entry.demand)
        if failed is None or isinstance(failed, Reason):
            return failed
        ahead = min(
            sum(max(0, bisect.bisect_left(group.order, entry.key) - begin) for group, begin in blocked)
            for blocked in (look.blocked.get(room.view.name, ()) for room in failed)
        )
        return failed[0].shortage(entry.demand.resources, ahead)

    def _first(self, limit: int) -> Iterator[str]:
        orders = (group.order[:limit] for group in self._groups.values())
        for number, key in enumerate(heapq.merge(*orders)):
            if number >= limit:
                return
            yield key[2]


def plan(queued: Sequence[Job], clusters: Sequence[ClusterView], held: Sequence[Held]) -> Plan:
    """Make one whole plan from nothing but what is given.

    :param queued: jobs to place.
    :param held: what open attempts hold; an unreachable one holds on.
    """
    board = Board()
    for view in clusters:
        board.put_cluster(view)
    for number, hold in enumerate(held):
        board.hold(("", number), hold)
    for job in queued:
        board.put_job(replace(job, phase=Phase.QUEUED))
    return board.plan(len(queued) + 1)
