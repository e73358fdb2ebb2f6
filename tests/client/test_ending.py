"""Waiting for many jobs at once over one reader of the change log."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Phase

from .conftest import JOB, Service, ok, problem

ENDED = replace(JOB, phase=Phase.SUCCEEDED, ended=2.0)
PAGE = {"items": [], "next": None, "log_position": 3}


def change(number: int, kind: str, job) -> bytes:
    row = {"id": number, "time": 1.0, "kind": kind, "object_id": job.id, "payload": job}
    return msgspec.json.encode(row) + b"\n"


def changes(*rows: bytes):
    async def answer(handler) -> None:
        handler.write(b"\n" + b"".join(rows))
        handler.finish()

    return answer


def test_a_job_that_has_ended_is_given_at_once(service: Service) -> None:
    service.answers = [ok(PAGE), ok(ENDED)]
    with Client(service.url, "t") as client:
        (ending,) = client.endings.of(["j1"])
        assert ending.result(30) == ENDED


def test_the_change_that_ends_a_job_gives_it_to_all_who_wait(service: Service) -> None:
    other = replace(ENDED, id="j2")
    log = changes(change(4, "job", JOB), change(5, "job", other), change(6, "cluster", ENDED), change(7, "job", ENDED))
    service.answers = [ok(PAGE), ok(JOB), ok(replace(other, phase=Phase.RUNNING)), log]
    with Client(service.url, "t") as client:
        first, second = client.endings.of(["j1", "j2"])
        assert (first.result(30), second.result(30)) == (ENDED, other)
        assert not first.cancel()
    asked = [request.path for request in service.requests]
    assert asked[:4] == ["/api/v1/jobs", "/api/v1/jobs/j1", "/api/v1/jobs/j2", "/api/v1/changes"]


def test_many_jobs_are_looked_up_in_the_list(service: Service) -> None:
    jobs = [replace(ENDED, id=f"j{number}") for number in range(20)]
    page = {"items": jobs[:10], "next": "more", "log_position": 3}
    service.answers = [ok(PAGE), ok(page), ok({"items": jobs[10:19], "next": None})]
    with Client(service.url, "t") as client:
        endings = client.endings.of(job.id for job in jobs)
        assert [ending.result(30) for ending in endings[:19]] == jobs[:19]
        with pytest.raises(errors.NotFound, match="j19"):
            endings[19].result(30)


def test_who_waits_for_a_deleted_job_hears_of_it(service: Service) -> None:
    service.answers = [ok(PAGE), ok(JOB), changes(change(4, "job.deleted", JOB))]
    with Client(service.url, "t") as client, pytest.raises(errors.NotFound):
        client.wait("j1", timeout=30)


def test_a_reader_that_fell_behind_looks_again(service: Service) -> None:
    service.answers = [ok(PAGE), ok(JOB), problem(410, "log_trimmed"), ok(PAGE), ok(ENDED)]
    with Client(service.url, "t") as client:
        assert client.wait("j1", timeout=30) == ENDED


def test_what_keeps_the_log_from_being_read_ends_the_waits_and_a_later_one_begins_anew(service: Service) -> None:
    service.answers = [ok(PAGE), ok(JOB), problem(403, "forbidden"), ok(PAGE), ok(ENDED)]
    with Client(service.url, "t") as client:
        with pytest.raises(errors.Forbidden):
            client.wait("j1", timeout=30)
        assert client.wait("j1", timeout=30) == ENDED
