"""Every decision of the contract in one object, so that a test can replace one by a bug and see it found.

The first half is the model's own functions. The second half are the duties of parts that do I/O in the product
(writer, output lane, agent, runner); here they are reduced to the question that each must answer rightly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from jupyter_gpu_platform.model import board, lifecycle
from jupyter_gpu_platform.model.jobs import Job, Phase

if TYPE_CHECKING:
    from jupyter_gpu_platform.wire.messages import Desired

    from .cluster import Entry, Runner
    from .service import Line

#: (job, attempt)
Key = tuple[str, int]


class Stream(NamedTuple):
    """One attempt's row in the output lane."""

    cluster: str
    incarnation: str
    next_seq: int = 1
    #: a newer attempt's stream is open
    fenced: bool = False


class Rules:
    """The right decisions."""

    plan = staticmethod(board.plan)
    place = staticmethod(lifecycle.place)
    hold_back = staticmethod(lifecycle.hold_back)
    claim = staticmethod(lifecycle.claim)
    end = staticmethod(lifecycle.end)
    cancel = staticmethod(lifecycle.cancel)
    interrupt = staticmethod(lifecycle.interrupt)
    retry = staticmethod(lifecycle.retry)
    abandon = staticmethod(lifecycle.abandon)
    lose_contact = staticmethod(lifecycle.lose_contact)
    regain_contact = staticmethod(lifecycle.regain_contact)
    expire = staticmethod(lifecycle.expire)
    wanted = staticmethod(lifecycle.wanted)

    # --- the service's duties

    def answers(self, *, committed: bool) -> bool:
        """The writer: is a request answered now?"""
        return committed

    def placeable(self, jobs: Iterable[Job]) -> list[Job]:
        """The planner: which jobs may be given an attempt?"""
        return [job for job in jobs if job.phase is Phase.QUEUED]

    def shown(self, *, committed: tuple[Line, ...], pending: tuple[Line, ...]) -> tuple[Line, ...]:
        """The reader: which output may it see?"""
        return committed

    def takes_records(self, stream: Stream, *, cluster: str, incarnation: str) -> bool:
        """The output lane's fence."""
        return not stream.fenced and (stream.cluster, stream.incarnation) == (cluster, incarnation)

    def fresh(self, next_seq: int, first: int, lines: Sequence[str]) -> Sequence[str]:
        """The output lane: which of these lines are new? None where some before them are missing."""
        return lines[next_seq - first :] if first <= next_seq else ()

    def kept_over_a_crash(self, streams: Mapping[Key, Stream]) -> dict[Key, Stream]:
        """The output lane: its cursors as a restarted replica finds them."""
        return dict(streams)

    def may_interrupt(self, capabilities: Iterable[str]) -> bool:
        """The API: may an interrupt be asked of an agent that declared these?"""
        return "interrupt" in capabilities

    def unknown_is_told_to_forget(self, *, decided: bool) -> bool:
        """The gateway: does an attempt that the store doesn't know get a tombstone?"""
        return decided

    # --- the agent's and the runner's duties

    def obeys(self, held: tuple[str, int], told: tuple[str, int]) -> bool:
        """The agent: does desired state (store incarnation, generation) replace the one it holds?"""
        return held[0] != told[0] or held[1] <= told[1]

    def lets_go(self, entry: Entry, desired: Sequence[Desired]) -> bool:
        """The agent: does a whole desired state that doesn't name this attempt end it?"""
        return False

    def runs_user_code(self, *, granted: bool) -> bool:
        """The runner: may it start the user's code?"""
        return granted

    def starts_anew(self, told: Desired) -> bool:
        """The agent: does it start an attempt that is to run and that it holds nothing of?"""
        return not told.incarnation

    def passes_on(self, next_seq: int, sent: int) -> int:
        """The agent: what it tells the runner is durable, of what the service said and what it has sent."""
        return next_seq

    def reports_end(self, runner: Runner, store: str) -> bool:
        """The agent: may it report to this store that the incarnation has ended?"""
        if runner.alive:
            return False
        if not runner.claimed or runner.fenced or store in runner.refused:
            return True
        return runner.durable_in == store and runner.durable > len(runner.spool)
