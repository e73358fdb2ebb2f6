"""Jobs and their output over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from .conftest import COMMAND, Service


def lines(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Give the lines as they come, without the blank ones."""
    for line in answer.iter_lines():
        if line:
            yield msgspec.json.decode(line)


def stream(text: str) -> dict[str, Any]:
    return {"type": "stream", "name": "stdout", "text": text}


EXIT = {"type": "exit", "exit_code": 0, "signal": None, "reason": None}


def test_create_get_and_etag(client: httpx.Client) -> None:
    made = client.post("/api/v1/jobs", json=COMMAND | {"name": "näme 🎈"})
    assert made.status_code == 201
    assert made.json()["phase"] == "queued"
    # The planner writes why the job waits, once: at the latest the third look finds nothing new.
    for _ in range(3):
        found = client.get(made.headers["Location"])
        assert found.json()["spec"]["name"] == "näme 🎈"
        again = client.get(made.headers["Location"], headers={"If-None-Match": found.headers["ETag"]})
        if again.status_code == 304:
            break
    assert (again.status_code, again.content) == (304, b"")


def test_the_same_key_gets_the_same_answer_and_another_body_a_409(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "monday"}
    first = client.post("/api/v1/jobs", json=COMMAND, headers=headers)
    second = client.post("/api/v1/jobs", content=msgspec.json.format(msgspec.json.encode(COMMAND)), headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    other = client.post("/api/v1/jobs", json=COMMAND | {"name": "x"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")


def test_keys_of_two_people_are_apart(service: Service) -> None:
    ids = set()
    for name in ("user", "other"):
        with service.client(name) as client:
            ids.add(client.post("/api/v1/jobs", json=COMMAND, headers={"Idempotency-Key": "same"}).json()["id"])
    assert len(ids) == 2


def test_pages_hold_each_job_once_while_others_are_added(service: Service, client: httpx.Client) -> None:
    made = [service.job(labels={"batch": "pages"}) for _ in range(7)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3, "label": "batch=pages"}
    while True:
        page = client.get("/api/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["items"]]
        service.job(labels={"batch": "pages"})
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == made[::-1]


def test_list_then_follow_misses_nothing(service: Service, client: httpx.Client) -> None:
    position = client.get("/api/v1/jobs").json()["log_position"]
    job = service.job()
    with client.stream("GET", "/api/v1/changes", params={"after": position, "follow": 1}) as answer:
        changes = lines(answer)
        first = next(change for change in changes if change["object_id"] == job)
        assert first["payload"]["phase"] == "queued"
        client.post(f"/api/v1/jobs/{job}/cancel")
        after = next(change for change in changes if change["object_id"] == job and change["payload"]["ended"])
        assert after["payload"]["phase"] == "cancelled"


def test_a_position_that_the_log_never_had_is_a_410(client: httpx.Client) -> None:
    answer = client.get("/api/v1/changes", params={"after": 10**15})
    assert (answer.status_code, answer.json()["code"]) == (410, "log_trimmed")


def test_output_is_followed_to_its_end_and_resumed_from_any_cursor(service: Service, client: httpx.Client) -> None:
    job = service.job()
    service.run(job)
    got: list[dict[str, Any]] = []
    first, done = threading.Event(), threading.Event()

    def follow() -> None:
        with service.client() as own, own.stream("GET", f"/api/v1/jobs/{job}/output?follow=1") as answer:
            for line in lines(answer):
                got.append(line)
                first.set()
        done.set()

    thread = threading.Thread(target=follow)
    thread.start()
    service.append(job, 1, stream("eins\n"), {"type": "stream", "name": "stdout", "text": 'brace } "quote" \\'})
    assert first.wait(10)
    service.append(job, 3, stream("zwei\n"), EXIT)
    service.end(job)
    assert done.wait(10)
    thread.join()
    end = got.pop()
    assert end == {"type": "eof", "cursor": got[-1]["cursor"], "phase": "succeeded", "ended": True}
    assert [record["seq"] for record in got] == [1, 2, 3, 4]
    assert all((record["attempt"], record["replica"]) == (1, 0) for record in got)
    for number, record in enumerate(got):
        rest = list(lines(client.get(f"/api/v1/jobs/{job}/output", params={"after": record["cursor"], "follow": 1})))
        assert rest == [*got[number + 1 :], end]


def test_output_comes_in_pages(service: Service, client: httpx.Client) -> None:
    job = service.job()
    service.run(job)
    service.append(job, 1, *[stream(f"{number}\n") for number in range(5)])
    *page, end = lines(client.get(f"/api/v1/jobs/{job}/output", params={"limit": 2}))
    assert [record["seq"] for record in page] == [1, 2]
    assert (end["ended"], end["cursor"]) == (False, page[-1]["cursor"])
    *page, end = lines(client.get(f"/api/v1/jobs/{job}/output", params={"after": end["cursor"]}))
    assert [record["seq"] for record in page] == [3, 4, 5]
    assert (end["ended"], end["phase"]) == (False, "running")


def test_more_output_than_one_read_takes_is_sent_whole(service: Service, client: httpx.Client) -> None:
    job = service.job()
    service.run(job)
    for first in range(1, 3001, 500):
        service.append(job, first, *[stream("x" * 100) for _ in range(500)])
    service.end(job)
    *records, end = lines(client.get(f"/api/v1/jobs/{job}/output", params={"follow": "true"}))
    assert [record["seq"] for record in records] == list(range(1, 3001))
    assert end["ended"]


def test_a_follower_who_leaves_is_forgotten(service: Service) -> None:
    job = service.job()
    service.run(job)
    service.append(job, 1, stream("here\n"))
    with service.client() as client, client.stream("GET", f"/api/v1/jobs/{job}/output?follow=1") as answer:
        assert next(lines(answer))["seq"] == 1
    assert service.call(service.server.activity.drained(10))


def test_following_a_job_that_never_ran_ends_with_its_cancel(service: Service, client: httpx.Client) -> None:
    job = service.job()
    with client.stream("GET", f"/api/v1/jobs/{job}/output?follow=1") as answer:
        with service.client() as other:
            assert other.post(f"/api/v1/jobs/{job}/cancel").status_code == 202
        assert [line["phase"] for line in lines(answer)] == ["cancelled"]


def test_a_download_is_a_file(service: Service, client: httpx.Client) -> None:
    job = service.job()
    service.run(job)
    result = {"type": "result", "data": {"text/plain": "42"}, "metadata": {}, "execution_count": 1}
    error = {"type": "error", "ename": "E", "evalue": "v", "traceback": ["Traceback", "E: v"]}
    service.append(job, 1, stream("päth\n"), result, error, EXIT)
    text = client.get(f"/api/v1/jobs/{job}/download")
    assert text.text == "päth\n42\nTraceback\nE: v\n"
    assert f"{job}.log" in text.headers["Content-Disposition"]
    raw = client.get(f"/api/v1/jobs/{job}/download", params={"format": "ndjson"})
    assert [record["type"] for record in lines(raw)] == ["stream", "result", "error", "exit"]
    assert raw.headers["Content-Type"] == "application/x-ndjson"


def test_only_ended_jobs_are_deleted_and_their_output_goes_too(service: Service, client: httpx.Client) -> None:
    job = service.job()
    service.run(job)
    service.append(job, 1, stream("x"), EXIT)
    assert client.delete(f"/api/v1/jobs/{job}").status_code == 409
    service.end(job)
    assert client.delete(f"/api/v1/jobs/{job}").status_code == 204
    assert client.get(f"/api/v1/jobs/{job}").status_code == 404
    assert service.call(service.services.output.size(job)) == (0, 0)


def test_cancel_is_repeatable_and_interrupt_needs_running_code(service: Service, client: httpx.Client) -> None:
    job = service.job()
    assert client.post(f"/api/v1/jobs/{job}/interrupt").status_code == 409
    service.run(job)
    assert client.post(f"/api/v1/jobs/{job}/interrupt").status_code == 202
    attempt = client.get(f"/api/v1/jobs/{job}/attempts").json()["items"][0]
    assert attempt["interrupts"] == 1
    versions = {client.post(f"/api/v1/jobs/{job}/cancel").json()["version"] for _ in range(3)}
    assert len(versions) == 1
    assert client.post(f"/api/v1/jobs/{job}/abandon").status_code == 409
    assert client.post(f"/api/v1/jobs/{job}/retry").status_code == 409


def test_events_can_be_read_on_from_any_place(service: Service, client: httpx.Client) -> None:
    job = service.job()
    client.post(f"/api/v1/jobs/{job}/cancel")
    whole = client.get(f"/api/v1/jobs/{job}/events").json()
    assert whole["items"][0]["code"] == "created"
    page = client.get(f"/api/v1/jobs/{job}/events", params={"limit": 1}).json()
    rest = client.get(f"/api/v1/jobs/{job}/events", params={"after": page["next"]}).json()
    assert page["items"] + rest["items"] == whole["items"]


@pytest.mark.parametrize("role", ["user", "admin"])
def test_batches_are_made_together(service: Service, role: str) -> None:
    with service.client(role) as client:
        answer = client.post("/api/v1/job-batches", json={"jobs": [COMMAND] * 1000})
    assert answer.status_code == 201
    assert len({job["id"] for job in answer.json()["jobs"]}) == 1000


def test_postgresql_serves_the_same(postgres_url: str, own_service: Any) -> None:
    service: Service = own_service(database_url=postgres_url)
    test_output_is_followed_to_its_end_and_resumed_from_any_cursor(service, client := service.client())
    test_list_then_follow_misses_nothing(service, client)
    test_pages_hold_each_job_once_while_others_are_added(service, client)
    test_the_same_key_gets_the_same_answer_and_another_body_a_409(client)
    client.close()
