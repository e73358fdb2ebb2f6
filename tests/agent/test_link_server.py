"""What a supervisor is answered when it asks for values, brings some, or waits for what somebody types."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

import pytest
from jupyter_gpu_agent.core import Core
from jupyter_gpu_agent.executors import AttemptKey, Incoming
from jupyter_gpu_agent.link_server import LinkServer
from tornado.netutil import bind_unix_socket

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.runner.link import UnixConnection
from jupyter_gpu_platform.wire.messages import Answer, Desired
from jupyter_gpu_platform.wire.session import Got

pytestmark = pytest.mark.anyio

DATA = b"a value " * 1_000_000
DIGEST = hashlib.sha256(DATA).hexdigest()
OBJECT = f"/objects/{DIGEST}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ObjectsCore(Core):
    """The real core, with objects that are in memory instead of at a service."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, bytes] = {}
        self.refusal: errors.GpuPlatformError | None = None
        #: a fetch breaks off after so many bytes
        self.breaks_at: int | None = None
        self.given_up = asyncio.Event()

    @contextlib.asynccontextmanager
    async def fetch(self, key: AttemptKey, digest: str) -> AsyncIterator[Incoming]:
        if self.refusal is not None:
            raise self.refusal
        if digest not in self.kept:
            raise errors.NotFound("there is none such")
        yield Incoming(len(self.kept[digest]), self._pieces(self.kept[digest]))

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            if self.breaks_at is not None and start >= self.breaks_at:
                raise errors.Unavailable("the service is gone")
            yield data[start : start + 100_000]

    async def store(
        self, key: AttemptKey, incarnation: str, digest: str, size: int, body: AsyncIterable[bytes]
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        try:
            data = b"".join([part async for part in body])
        except BaseException:
            self.given_up.set()
            raise
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise errors.DigestMismatch("these are other bytes")
        self.kept[digest] = data


class Runner:
    """Asks as a supervisor does."""

    def __init__(self, link: LinkServer, path: str) -> None:
        self._path = path
        self._token = f"Bearer {link.token('j1', 1)}"

    def _ask(self, method: str, tail: str, body: Any, length: int | None) -> tuple[int, bytes]:
        connection = UnixConnection(self._path)
        headers = {"Authorization": self._token}
        if length is not None:
            headers["Content-Length"] = str(length)
        try:
            connection.request(method, f"/v1/attempts/j1/1/0{tail}", body=body, headers=headers)
            with connection.getresponse() as response:
                return response.status, response.read()
        finally:
            connection.close()

    async def ask(self, method: str, tail: str, body: Any = None, length: int | None = None) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._ask, method, tail, body, length)


@contextlib.asynccontextmanager
async def serving(core: Core) -> AsyncIterator[Runner]:
    with tempfile.TemporaryDirectory(prefix="jgp-") as directory:
        path = f"{directory}/socket"
        link = LinkServer(core, b"key", lambda _: None)
        link.start(bind_unix_socket(path, mode=0o600))
        try:
            yield Runner(link, path)
        finally:
            await link.close()


async def test_a_value_comes_whole_or_is_known_to_be_short() -> None:
    core = ObjectsCore()
    core.kept[DIGEST] = DATA
    async with serving(core) as runner:
        assert await runner.ask("GET", OBJECT) == (200, DATA)
        core.breaks_at = 500_000
        with pytest.raises(http.client.IncompleteRead):
            await runner.ask("GET", OBJECT)


async def test_what_is_not_named_and_what_cannot_be_had_now_are_told_apart() -> None:
    core = ObjectsCore()
    async with serving(core) as runner:
        status, body = await runner.ask("GET", OBJECT)
        assert (status, json.loads(body)) == (404, {"code": "not_found", "message": "there is none such"})
        core.refusal = errors.Unavailable("no service")
        assert (await runner.ask("GET", OBJECT))[0] == 503


async def test_a_result_is_taken_once_it_is_kept() -> None:
    core = ObjectsCore()
    async with serving(core) as runner:
        assert (await runner.ask("PUT", f"{OBJECT}?incarnation=i", DATA))[0] == 200
        assert core.kept == {DIGEST: DATA}
        status, body = await runner.ask("PUT", f"{OBJECT}?incarnation=i", DATA[1:])
        assert (status, json.loads(body)["code"]) == (400, "digest_mismatch")


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (errors.ClaimLost("another holds it"), 410),
        (errors.BodyTooLarge("too much"), 413),
        (errors.Unavailable("no service"), 503),
        (errors.StorageFull("no room"), 503),
    ],
)
async def test_a_refusal_reaches_a_runner_that_is_still_sending(refusal: errors.GpuPlatformError, status: int) -> None:
    core = ObjectsCore()
    core.refusal = refusal
    async with serving(core) as runner:
        # More than all buffers hold, and more than a post of records may have.
        assert (await runner.ask("PUT", f"{OBJECT}?incarnation=i", DATA * 4))[0] == status


async def test_a_runner_that_breaks_off_gives_the_store_up() -> None:
    core = ObjectsCore()

    def half() -> Iterator[bytes]:
        yield DATA[:1000]
        raise ConnectionAbortedError

    async with serving(core) as runner:
        with pytest.raises(ConnectionAbortedError):
            await runner.ask("PUT", f"{OBJECT}?incarnation=i", half(), len(DATA))
        async with asyncio.timeout(20):
            await core.given_up.wait()
    assert core.kept == {}


async def test_a_parked_question_brings_what_somebody_typed() -> None:
    core = ObjectsCore()
    desired = Desired(job="j1", attempt=1, generation=3, action="stop", incarnation="i")
    core._desired[AttemptKey("j1", 1)] = desired
    core.take(Got(Answer(job="j1", attempt=1, request=1, value="forty-two")))
    core.take(Got(Answer(job="j2", attempt=1, request=1, value="nobody here asks")))
    async with serving(core) as runner:
        tail = "/wanted?incarnation=i&generation=3&durable=1"
        status, body = await runner.ask("GET", tail)
        assert (status, json.loads(body)["inputs"]) == (200, [{"request": 1, "value": "forty-two"}])
        core.take(Got(Answer(job="j1", attempt=1, request=2, value="")))
        _, body = await runner.ask("GET", f"{tail}&inputs=1")
        assert json.loads(body)["inputs"] == [{"request": 2, "value": ""}]
