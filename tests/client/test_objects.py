"""Objects through both clients: sent once, received whole, and tried again where the connection broke."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tornado.web import RequestHandler

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient, Client
from jupyter_gpu_platform.model.jobs import ObjectRef

from .conftest import Answer, Service, cut, ok, problem, sent

DATA = bytes(range(256)) * 10_000
DIGEST = hashlib.sha256(DATA).hexdigest()
REF = ObjectRef(digest=DIGEST, size=len(DATA))
MISSING = problem(404, "not_found")


def empty() -> Answer:
    return sent(b"")


def put_sync(url: str) -> ObjectRef:
    with Client(url, "t") as client:
        return client.put_object(DIGEST, len(DATA), lambda: [DATA[:100], memoryview(DATA)[100:]])


def put_async(url: str) -> ObjectRef:
    async def put() -> ObjectRef:
        async with AsyncClient(url, "t") as client:
            return await client.put_object(DIGEST, len(DATA), lambda: [DATA[:100], memoryview(DATA)[100:]])

    return asyncio.run(put())


def get_sync(url: str, path: Path) -> None:
    with Client(url, "t") as client:
        client.get_object(DIGEST, path)


def get_async(url: str, path: Path) -> None:
    async def get() -> None:
        async with AsyncClient(url, "t") as client:
            await client.get_object(DIGEST, path)

    asyncio.run(get())


puts = pytest.mark.parametrize("put", [put_sync, put_async])
gets = pytest.mark.parametrize("get", [get_sync, get_async])


@puts
def test_what_is_there_is_not_sent_again(service: Service, put: Callable[[str], ObjectRef]) -> None:
    service.answers = [empty()]
    assert put(service.url) == REF
    assert [request.method for request in service.requests] == ["HEAD"]


@puts
def test_a_cut_upload_is_sent_again_from_the_beginning(service: Service, put: Callable[[str], ObjectRef]) -> None:
    service.answers = [MISSING, cut(), ok(REF)]
    assert put(service.url) == REF
    assert [request.method for request in service.requests] == ["HEAD", "PUT", "PUT"]
    assert [request.body for request in service.requests[1:]] == [DATA, DATA]
    assert service.requests[1].headers["Content-Length"] == str(len(DATA))


@puts
def test_a_refused_upload_is_raised(service: Service, put: Callable[[str], ObjectRef]) -> None:
    service.answers = [MISSING, problem(400, "digest_mismatch")]
    with pytest.raises(errors.DigestMismatch):
        put(service.url)


def short() -> Answer:
    async def answer(handler: RequestHandler) -> None:
        handler.set_header("Content-Length", str(len(DATA)))
        await cut(DATA[:1000])(handler)

    return answer


@gets
def test_a_download_that_breaks_off_begins_anew(
    service: Service, tmp_path: Path, get: Callable[[str, Path], None]
) -> None:
    service.answers = [short(), sent(DATA)]
    get(service.url, tmp_path / "value")
    assert (tmp_path / "value").read_bytes() == DATA
    assert [file.name for file in tmp_path.iterdir()] == ["value"]


@gets
@pytest.mark.parametrize(("answer", "error"), [(sent(DATA[1:]), errors.InternalError), (MISSING, errors.NotFound)])
def test_nothing_is_there_where_it_did_not_come(
    service: Service, tmp_path: Path, get: Callable[[str, Path], None], answer: Answer, error: type[Exception]
) -> None:
    service.answers = [answer]
    with pytest.raises(error):
        get(service.url, tmp_path / "value")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_is_repeated_until_it_is_taken(service: Service) -> None:
    service.answers = [cut(), empty()]
    with Client(service.url, "t") as client:
        client.answer("j1", 2, "forty-two")
    assert [request.path for request in service.requests] == ["/api/v1/jobs/j1/input"] * 2
    assert service.requests[1].body == b'{"request":2,"value":"forty-two"}'
