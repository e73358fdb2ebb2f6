"""Logs are followed over broken connections without a record lost or doubled."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient, Client
from jupyter_gpu_platform.client.protocol import Endpoint
from jupyter_gpu_platform.client.streams import Lines

from .conftest import JOB, Service, cut, lines, ok, problem, sent

RECORDS = [{"type": "stream", "name": "stdout", "text": f"{n}\n", "cursor": f"c{n}"} for n in range(1, 7)]
EOF = {"type": "eof", "cursor": "c6", "phase": "succeeded", "ended": True}
BROKEN = [
    cut(lines(*RECORDS[:2]) + lines(RECORDS[2])[:20]),  # in the middle of a line
    problem(503, "unavailable", retry_after="0"),
    sent(b"\n" + lines(*RECORDS[2:4])),  # ended in good order before its end
    sent(lines(RECORDS[4], {**EOF, "cursor": "c5", "ended": False})),
    cut(),
    sent(lines(RECORDS[5]) + b"\n" + lines(EOF)),
]


def _cursors(service: Service) -> list[str]:
    return [request.query_arguments.get("after", [b""])[0].decode() for request in service.requests]


def test_a_follower_goes_on_from_its_cursor_after_each_cut(service: Service) -> None:
    service.answers = BROKEN
    with Client(service.url, "t") as client:
        assert list(client.follow("j1")) == RECORDS
    assert _cursors(service) == ["", "c2", "c2", "c4", "c5", "c5"]


def test_so_does_the_asyncio_follower(service: Service) -> None:
    service.answers = BROKEN

    async def scenario() -> list:
        async with AsyncClient(service.url, "t") as client:
            return [record async for record in client.follow("j1")]

    assert asyncio.run(scenario()) == RECORDS


def test_a_job_that_is_gone_ends_the_follower(service: Service) -> None:
    service.answers = [problem(404, "not_found")]
    with Client(service.url, "t") as client, pytest.raises(errors.NotFound):
        next(client.follow("j1"))


def test_who_reads_no_more_looks_for_no_platform_when_the_connection_breaks(service: Service) -> None:
    service.answers = [cut(lines(RECORDS[0]))]
    looked, stopped = [], []

    def resolve() -> Endpoint:
        looked.append(True)
        return Endpoint(service.url, "t")

    with Client(service.url, "t", resolve=resolve) as client:
        records = client.follow("j1", stopped=lambda: bool(stopped))
        assert next(records) == RECORDS[0]
        stopped.append(True)
        assert list(records) == []
    assert (looked, len(service.requests)) == ([], 1)


def test_changes_up_to_now_end_and_know_where_they_were(service: Service) -> None:
    changes = [{"id": n, "time": 1.0, "kind": "job", "object_id": "j1", "payload": {}} for n in (4, 5, 9)]
    service.answers = [cut(lines(*changes[:2])), sent(lines(changes[2]))]
    with Client(service.url, "t") as client:
        assert [change.id for change in client.changes(3)] == [4, 5, 9]
    assert _cursors(service) == ["3", "5"]


def test_a_page_of_output_that_was_cut_is_asked_for_again(service: Service) -> None:
    service.answers = [cut(lines(RECORDS[0])), sent(lines(*RECORDS, EOF))]
    with Client(service.url, "t") as client:
        page = client.output("j1")
    assert (page.records, page.cursor, page.ended) == (RECORDS, "c6", True)


def test_waiting_has_an_end_of_its_own(service: Service) -> None:
    async def silent(handler) -> None:
        handler.write(b"\n")
        await handler.flush()
        gone = asyncio.Event()
        handler.on_connection_close = gone.set
        await gone.wait()

    service.answers = [ok({"items": [], "next": None, "log_position": 3}), ok(JOB), silent]
    with Client(service.url, "t") as client, pytest.raises(TimeoutError):
        client.wait("j1", timeout=0.3)


@given(st.lists(st.binary(max_size=5)), st.integers(1, 7))
def test_lines_come_out_whole_however_they_were_cut(parts: list[bytes], size: int) -> None:
    content = b"\n".join(parts) + b"\n"
    cutter, found = Lines(), []
    for start in range(0, len(content), size):
        found += cutter.feed(content[start : start + size])
    assert found == [line for line in content.split(b"\n") if line]
