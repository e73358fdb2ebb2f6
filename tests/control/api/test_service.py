"""The service itself: health, figures, shutting down, restarts, and back-pressure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.identity import Principal
from jupyter_gpu_platform.control.local import until_idle
from jupyter_gpu_platform.control.server import Server
from jupyter_gpu_platform.control.store.transaction import Transaction

from .conftest import COMMAND, Service, settings_at


def test_health_needs_no_token(service: Service) -> None:
    with service.client("anonymous") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ok"}


def test_unready_without_its_store(own_service: Callable[..., Service]) -> None:
    service = own_service()
    service.call(service.services.reader.close())
    with service.client("anonymous") as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_figures(service: Service, admin: httpx.Client) -> None:
    service.job()
    text = admin.get("/metrics").text
    assert 'jgp_http_requests_total{method="POST",route="/api/v1/jobs",status="201"}' in text
    assert 'jgp_jobs{phase="queued"}' in text
    assert "jgp_change_log_position" in text
    assert service.tokens["admin"] not in text


def test_figures_can_be_public(own_service: Callable[..., Service]) -> None:
    with own_service(metrics_public=True).client("anonymous") as client:
        assert client.get("/metrics").status_code == 200


def test_a_full_queue_is_a_429_that_says_when_to_come_back(own_service: Callable[..., Service]) -> None:
    service = own_service()
    began, go_on = threading.Event(), threading.Event()

    def block(_: Transaction) -> None:
        began.set()
        go_on.wait(20)

    loop_work: list[object] = []

    async def fill() -> None:
        loop_work.append(asyncio.create_task(service.services.writer.run(block)))
        await asyncio.to_thread(began.wait, 10)
        loop_work.extend([asyncio.ensure_future(service.services.writer.run(_nothing)) for _ in range(10_000)])
        await asyncio.sleep(0)
        with pytest.raises(errors.TooManyRequests):
            await service.services.writer.run(_nothing)

    service.call(fill())
    try:
        with service.client() as client:
            answer = client.post("/api/v1/jobs", json=COMMAND)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert answer.headers["Retry-After"] == "1"
    finally:
        go_on.set()


def _nothing(_: Transaction) -> None:
    return None


def test_shutdown_when_idle_is_refused_while_a_job_is_open(own_service: Callable[..., Service]) -> None:
    service = own_service(local=True)
    stopped = threading.Event()
    service.server.activity.stop = stopped.set
    job = service.job()
    with service.client("admin") as client:
        answer = client.post("/api/v1/shutdown", json={"when_idle": True})
        assert (answer.status_code, stopped.is_set()) == (409, False)
        client.post(f"/api/v1/jobs/{job}/cancel")
        assert client.post("/api/v1/shutdown", json={"when_idle": True}).status_code == 202
    assert stopped.is_set()


def test_a_service_that_ends_breaks_streams_off_and_the_next_goes_on(own_service: Callable[..., Service]) -> None:
    service = own_service()
    job = service.job()
    service.run(job)
    service.append(job, 1, {"type": "stream", "name": "stdout", "text": "1"})
    with service.client() as client, client.stream("GET", f"/api/v1/jobs/{job}/output?follow=1") as answer:
        pieces = answer.iter_lines()
        line = next(piece for piece in pieces if piece)
        settings = service.server.settings
        service.call(service.server.close())
        # No last chunk: the reader can tell that there is more.
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    cursor = line.split('"cursor":"')[1].split('"')[0]
    service.server = service.call(Server.open(settings))
    service.services.identity.add_fixed(service.tokens["user"], Principal(user="user", role="user"))
    service.append(job, 2, {"type": "stream", "name": "stdout", "text": "2"})
    with service.client() as client:
        text = client.get(f"/api/v1/jobs/{job}/output", params={"after": cursor}).text
    assert next(part.split(",")[0] for part in text.splitlines()) == '{"seq":2'


def test_it_is_idle_once_no_job_is_open_and_nobody_calls(own_service: Callable[..., Service]) -> None:
    service = own_service(local=True)
    services, activity = service.services, service.server.activity
    job = service.job()

    async def idle_within(seconds: float) -> bool:
        try:
            await asyncio.wait_for(until_idle(services, activity, 0.05), seconds)
        except TimeoutError:
            return False
        return True

    assert not service.call(idle_within(0.5))
    with service.client() as client:
        client.post(f"/api/v1/jobs/{job}/cancel")
    assert service.call(idle_within(10))


def test_a_port_in_use_is_told_with_its_fix(service: Service, tmp_path: Path) -> None:
    port = int(service.url.rsplit(":", 1)[1])
    with pytest.raises(errors.LocalPlatformError) as told:
        service.call(Server.open(settings_at(tmp_path, port=port)))
    assert "--port" in told.value.hint
