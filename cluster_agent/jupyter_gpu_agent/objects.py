"""Objects on their way between the control service and runners: passed through, nothing kept here.

Any replica answers, so a transfer goes to the one that the agent dialled last, and goes on when the agent's own
sockets are made anew meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import TYPE_CHECKING

import httpx
import msgspec

from jupyter_gpu_platform import errors

from .executors import AttemptKey, Incoming

if TYPE_CHECKING:
    from .connection import Endpoint

#: seconds without a byte after which a transfer is given up; a service commits to its disk before it answers
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
#: bytes passed on at once
PIECE = 2**20


class _Problem(msgspec.Struct):
    code: str
    detail: str
    hint: str = ""


class Objects:
    """What one agent fetches for its attempts and stores for them."""

    def __init__(self) -> None:
        #: whom to ask, as `Core` knows it
        self.endpoint: Endpoint | None = None
        # No proxy: the agent's own sockets take none either.
        self._http = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, follow_redirects=False)

    async def close(self) -> None:
        await self._http.aclose()

    def _request(self, method: str, key: AttemptKey, digest: str, **more: object) -> httpx.Request:
        assert self.endpoint is not None, "the core sets it"
        url, agent, credential = self.endpoint
        path = f"{url}/api/v1/agents/{agent}/objects/{key.job}/{key.attempt}/{digest}"
        headers = {"Authorization": f"Bearer {credential}", **_headers(more.pop("length", None))}
        return self._http.build_request(method, path, headers=headers, **more)  # type: ignore[arg-type]  # httpx's own

    @contextlib.asynccontextmanager
    async def fetch(self, key: AttemptKey, digest: str) -> AsyncIterator[Incoming]:
        """Open an object that an attempt needs.

        :raises NotFound: its spec names none such.
        :raises Unavailable: it can't be had now, or breaks off; try again.
        """
        with _translated():
            response = await self._http.send(self._request("GET", key, digest), stream=True)
            try:
                await _check(response)
                yield Incoming(int(response.headers["Content-Length"]), _pieces(response))
            finally:
                await response.aclose()

    async def store(
        self, key: AttemptKey, incarnation: str, digest: str, size: int, body: AsyncIterable[bytes]
    ) -> None:
        """Store what an attempt has made; returns once it is committed.

        :raises ClaimLost: the incarnation doesn't hold the attempt.
        :raises InvalidRequest: the bytes are not what the digest names, or too many.
        :raises Unavailable: it can't be stored now; try again.
        """
        with _translated():
            params = {"incarnation": incarnation}
            request = self._request("PUT", key, digest, params=params, content=body, length=size)
            response = await self._http.send(request, stream=True)
            try:
                await _check(response)
            finally:
                await response.aclose()


def _headers(length: object) -> dict[str, str]:
    return {} if length is None else {"Content-Length": str(length), "Content-Type": "application/octet-stream"}


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    with _translated():
        async for piece in response.aiter_raw(PIECE):
            yield piece


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    body = await response.aread()
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        raise errors.Unavailable(f"the control service answered {response.status_code}") from None
    raise errors.from_problem(problem.code, problem.detail, hint=problem.hint)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise errors.Unavailable(f"the control service can't be asked: {error or type(error).__name__}") from error
