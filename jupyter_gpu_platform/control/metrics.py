"""What the service counts about itself, in Prometheus' text format; docs/operations-service.md lists all of it.

Most figures are read where they are, at the moment of the scrape, so that counting costs the work itself next to
nothing. A figure's labels have few values: no user and no job is one, and a cluster only of what its agent says.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from sqlalchemy import func, select

from ..model.jobs import Phase
from .store import tables
from .store.batches import BUCKETS, BatchThread, Figures
from .store.transaction import Transaction

if TYPE_CHECKING:
    from .listening import BoundedServer
    from .services import Services

#: what agents say of themselves (`wire.messages.Figures`)
AGENT_COUNTERS = {
    "connections": "Times that a cluster's agent was welcomed since it began.",
    "connection_failures": "Connections of a cluster's agent that broke, or never came about.",
    "action_failures": "Tries of a cluster's agent to start, stop or forget an attempt that failed and were repeated.",
    "executor_failures": "Failures in the loops of a cluster's executor, which go on; the agent's log has each.",
    "calls_put_off": "Claims and records that runners were asked to send again later: no room, or no service.",
    "calls_refused": "Claims and records of runners that were turned away: their attempts are over, or others'.",
}
AGENT_GAUGES = {
    "reports_waiting": "Ends and tombstones that a cluster's agent knows of and the store does not yet.",
    "output_waiting_bytes": "Output in the memory of a cluster's agent that is not yet committed.",
    "spool_bytes": "Output that the runners of a cluster keep on disk, until it is committed and their jobs are over.",
}

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: seconds between looks at how late the event loop is
LOOK = 1.0


def phase_counts(tx: Transaction) -> dict[Phase, int]:
    """Count the jobs of each phase."""
    phase = tables.job.c.phase
    query = select(phase, func.count()).group_by(phase)
    return {Phase(name): count for name, count in tx.connection.execute(query)}


class Loop:
    """What one of the loops that never end has done so far."""

    def __init__(self) -> None:
        #: seconds since the epoch; 0: never
        self.succeeded = 0.0
        self.rounds = 0
        self.failures = 0

    def done(self) -> None:
        self.rounds += 1
        self.succeeded = time.time()

    def failed(self) -> None:
        self.failures += 1


class Metrics:
    """One process's figures; each app has a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "jgp_http_requests", "HTTP requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "jgp_http_request_seconds",
            "Time until a request was answered; streams are not counted.",
            ["route", "method"],
            registry=self.registry,
        )
        self.in_flight = Gauge("jgp_http_requests_in_flight", "HTTP requests being answered.", registry=self.registry)
        self.jobs = Gauge("jgp_jobs", "Jobs by phase.", ["phase"], registry=self.registry)
        self.log_position = Gauge(
            "jgp_change_log_position", "Id of the newest row of the change log.", registry=self.registry
        )
        self.mistakes = Counter(
            "jgp_unexpected_errors",
            "Bugs caught where a loop has to go on; the log has each.",
            ["where"],
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "jgp_event_loop_lag_seconds",
            f"How late the event loop was; looked at every {LOOK:g} s.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.feed_delay = Histogram(
            "jgp_change_feed_delay_seconds",
            "Time from a change to its being read by those who follow jobs here; replicas' clocks may differ.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.placements = Counter("jgp_placements", "Attempts given to clusters.", ["retry"], registry=self.registry)
        self.agent_connections = Counter(
            "jgp_agent_connections", "Agents welcomed, reconnects included.", registry=self.registry
        )
        self.relayed = Counter(
            "jgp_replica_requests",
            "Questions to other replicas about their agents.",
            ["result"],
            registry=self.registry,
        )
        self._loops: dict[str, Loop] = {}

    def loop(self, name: str) -> Loop:
        """Return the figures of the loop *name*, made at the first call."""
        return self._loops.setdefault(name, Loop())

    @property
    def loops(self) -> dict[str, Loop]:
        return dict(self._loops)

    def watch(self, services: Services, http: BoundedServer) -> None:
        """Read also what the parts of the service know of themselves."""
        self.registry.register(Parts(services, http))

    async def measure_lag(self) -> None:
        """Look again and again, until cancelled, how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK
            await asyncio.sleep(LOOK)
            self.loop_lag.observe(max(loop.time() - due, 0.0))

    def observe(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count one answered request; *seconds* is None for a stream, whose length says nothing."""
        found = self._children.get((route, method, status))
        if found is None:  # looking labels up costs more than counting
            children = self.requests.labels(route, method, str(status)), self.latency.labels(route, method)
            found = self._children[route, method, status] = children
        found[0].inc()
        if seconds is not None:
            found[1].observe(seconds)

    def set_jobs(self, counts: dict[Phase, int]) -> None:
        for phase in Phase:
            self.jobs.labels(phase.value).set(counts.get(phase, 0))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Parts:
    """Reads the figures of queues, loops, streams and connections at each scrape."""

    def __init__(self, services: Services, http: BoundedServer) -> None:
        self._services = services
        self._http = http

    def collect(self) -> Iterator[Metric]:
        yield from self._queues()
        yield from self._loops()
        yield from self._connections()
        yield from self._followers()
        yield from self._agents()

    def _queues(self) -> Iterator[Metric]:
        lanes = {"writer": self._services.writer.lane, "output": self._services.output.lane}
        gauges: dict[str, tuple[str, Callable[[BatchThread[Any]], float]]] = {
            "jgp_queue_depth": ("Operations that wait in a queue.", lambda lane: lane.waiting),
            "jgp_queue_depth_limit": ("Operations that may wait in a queue.", lambda lane: lane.limits.items),
            "jgp_queue_weight": ("What waits: operations (writer), bytes (output).", lambda lane: lane.weight),
            "jgp_queue_weight_limit": ("So much may wait.", lambda lane: lane.limits.weight),
            "jgp_queue_last_success_timestamp_seconds": (
                "When a queue's last batch was committed, seconds since the epoch.",
                lambda lane: lane.figures.succeeded,
            ),
        }
        counters: dict[str, tuple[str, Callable[[Figures], int]]] = {
            "jgp_queue_operations": ("Operations committed or refused by their own fault.", lambda f: f.items),
            "jgp_queue_batches": ("Transactions that a queue's operations shared.", lambda f: f.batches),
            "jgp_queue_failures": ("Batches that came to nothing: the store was away, or a bug.", lambda f: f.failures),
            "jgp_queue_refused": ("Operations turned away because too much waited.", lambda f: f.refused),
        }
        for name, (what, read) in gauges.items():
            yield _gauge(name, what, "queue", {queue: read(lane) for queue, lane in lanes.items()})
        for name, (what, count) in counters.items():
            yield _counter(name, what, "queue", {queue: count(lane.figures) for queue, lane in lanes.items()})
        commits = HistogramMetricFamily(
            "jgp_commit_seconds",
            "Time from the arrival of a batch's first operation to its commit: the longest wait in the batch.",
            labels=["queue"],
        )
        for queue, lane in lanes.items():
            commits.add_metric([queue], *_buckets(lane))
        yield commits

    def _loops(self) -> Iterator[Metric]:
        loops = self._services.metrics.loops
        yield _gauge(
            "jgp_loop_last_success_timestamp_seconds",
            "When a loop last came round in good order, seconds since the epoch; 0: never.",
            "loop",
            {name: loop.succeeded for name, loop in loops.items()},
        )
        rounds = {name: loop.rounds for name, loop in loops.items()}
        yield _counter("jgp_loop_rounds", "Rounds of a loop that ended in good order.", "loop", rounds)
        failures = {name: loop.failures for name, loop in loops.items()}
        yield _counter("jgp_loop_failures", "Rounds of a loop that were put off or failed.", "loop", failures)
        planner = self._services.planner_epoch()
        yield GaugeMetricFamily("jgp_planner_leads", "1 while this replica plans.", value=int(planner is not None))
        yield GaugeMetricFamily("jgp_planner_epoch", "Epoch of the planner's lease; 0 elsewhere.", value=planner or 0)

    def _connections(self) -> Iterator[Metric]:
        gateway = self._services.gateway
        sockets = gateway.socket_counts() if gateway else {}
        yield GaugeMetricFamily("jgp_http_connections", "HTTP connections open.", value=self._http.open)
        yield GaugeMetricFamily("jgp_http_connections_limit", "So many may be open.", value=self._http.limit)
        yield CounterMetricFamily(
            "jgp_http_connections_refused", "Connections refused because too many were open.", value=self._http.refused
        )
        yield _gauge("jgp_agent_sockets", "WebSockets of agents.", "kind", sockets)
        connected = len(gateway.connected()) if gateway else 0
        yield GaugeMetricFamily("jgp_agents_connected", "Agents connected to this replica.", value=connected)
        waiting = gateway.waiting() if gateway else {}
        yield _gauge("jgp_agent_messages_waiting", "Messages of agents that wait for the store.", "kind", waiting)
        slots = self._services.admission.all
        used = {name: slot.used for name, slot in slots.items()}
        yield _gauge("jgp_admitted", "What is admitted at this moment, of each kind that has a limit.", "what", used)
        refused = {name: slot.refused for name, slot in slots.items()}
        yield _counter("jgp_refused", "What was refused with 429, over its limit.", "what", refused)
        yield GaugeMetricFamily("jgp_threads", "Threads of the process.", value=threading.active_count())

    def _agents(self) -> Iterator[Metric]:
        figures = self._services.gateway.figures() if self._services.gateway else {}
        for kind, fields in ((_counter, AGENT_COUNTERS), (_gauge, AGENT_GAUGES)):
            for field, what in fields.items():
                values = {cluster: getattr(said, field) for cluster, said in figures.items()}
                yield kind(f"jgp_cluster_{field}", what, "cluster", values)

    def _followers(self) -> Iterator[Metric]:
        services = self._services
        newest = services.database.changes.newest
        yield _gauge(
            "jgp_followers",
            "Who waits for news here: of single jobs, of output, of the change log.",
            "of",
            {
                "jobs": services.watch.followers,
                "output": services.database.outputs.waiters,
                "changes": services.database.changes.waiters,
            },
        )
        positions = {"jobs": services.watch.position, "agents": services.gateway.position if services.gateway else None}
        lags = {name: max(newest - position, 0) for name, position in positions.items() if position is not None}
        yield _gauge("jgp_change_feed_lag_rows", "Rows of the change log not read yet, by reader.", "reader", lags)
        yield CounterMetricFamily(
            "jgp_listener_reconnects",
            "Times that the connection which hears other replicas' commits was made again.",
            value=services.database.reconnects,
        )


def _gauge(name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _counter(name: str, what: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, what, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _buckets(lane: BatchThread[object]) -> tuple[list[tuple[str, float]], float]:
    """Return the lane's times as Prometheus wants them: cumulated, and their sum."""
    total, cumulated = 0, []
    for end, count in zip((*map(str, BUCKETS), "+Inf"), lane.figures.counts, strict=True):
        total += count
        cumulated.append((end, float(total)))
    return cumulated, lane.figures.seconds


@contextlib.contextmanager
def counted(loop: Loop) -> Iterator[None]:
    """Count one round of *loop* as done, or as failed where it raises."""
    try:
        yield
    except Exception:
        loop.failed()
        raise
    loop.done()
