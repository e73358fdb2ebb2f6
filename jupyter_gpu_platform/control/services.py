"""The parts that one running control service is made of, in one place, so that each part is told of the others."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._version import __version__
from .limits import Admission, Limits

if TYPE_CHECKING:
    from .attempts import Attempts
    from .gateway import Gateway
    from .heads import Heads
    from .identity import Identity
    from .jobs import Jobs
    from .metrics import Metrics
    from .objects import Objects
    from .store.database import Database
    from .store.feed import ChangeFeed
    from .store.output import OutputLane
    from .store.reader import Reader
    from .store.writer import Writer
    from .tail import ChangeTail
    from .watch import JobWatch


@dataclass(kw_only=True)
class Services:
    """Everything a handler, the gateway or the planner may need. One per process."""

    database: Database
    writer: Writer
    reader: Reader
    feed: ChangeFeed
    output: OutputLane
    objects: Objects
    jobs: Jobs
    attempts: Attempts
    identity: Identity
    metrics: Metrics
    watch: JobWatch
    tail: ChangeTail
    heads: Heads
    limits: Limits = field(default_factory=Limits)
    admission: Admission = field(init=False)
    #: the agents' sockets; absent in a process that serves none
    gateway: Gateway | None = None
    #: random, new with each start of the process: who holds a lease
    replica_id: str = field(default_factory=lambda: secrets.token_hex(8))
    #: where other replicas reach this one; known once it listens
    replica_url: str = ""
    #: the epoch under which this replica plans; None while another does
    planner_epoch: Callable[[], int | None] = lambda: None
    version: str = __version__
    #: the platform of one person on one machine, which ends by itself
    local: bool = False
    fake_gpus: int = 0
    #: seconds since the epoch, injected by tests
    now: Callable[[], float] = time.time
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits)
