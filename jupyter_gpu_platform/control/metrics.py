"""What the service counts about itself, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select

from ..model.jobs import Phase
from .store import tables
from .store.transaction import Transaction

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def phase_counts(tx: Transaction) -> dict[Phase, int]:
    """Count the jobs of each phase."""
    phase = tables.job.c.phase
    query = select(phase, func.count()).group_by(phase)
    return {Phase(name): count for name, count in tx.connection.execute(query)}


class Metrics:
    """One process's figures; each app has a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self.queue = Gauge("jgp_queue_depth", "Operations that wait in a queue.", ["queue"], registry=self.registry)
        self.mistakes = Counter(
            "jgp_unexpected_errors",
            "Bugs caught where a loop has to go on; the log has each.",
            ["where"],
            registry=self.registry,
        )
        self.agents = Gauge("jgp_agents_connected", "Agents connected to this replica.", registry=self.registry)

    def observe(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count one answered request; *seconds* is None for a stream, whose length says nothing."""
        self.requests.labels(route, method, str(status)).inc()
        if seconds is not None:
            self.latency.labels(route, method).observe(seconds)

    def set_jobs(self, counts: dict[Phase, int]) -> None:
        for phase in Phase:
            self.jobs.labels(phase.value).set(counts.get(phase, 0))

    def text(self) -> bytes:
        return generate_latest(self.registry)
