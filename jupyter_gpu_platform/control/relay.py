"""The hop from one replica of the control service to the one that holds an agent.

Requests are signed with a key that only the replicas of one store know. The signature covers method, path, body and
time, and is good for a minute; what can be asked is idempotent, so that a repeated request does no harm.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from .. import errors, logs
from . import problems

log = logging.getLogger(__name__)

PREFIX = "/internal/v1/agents"
SIGNATURE, TIME = "X-Replica-Signature", "X-Replica-Time"
#: seconds by which the replicas' clocks may differ
SKEW = 60.0
_TIMEOUT = 10.0


class _Problem(msgspec.Struct):
    code: str
    detail: str


class Relay:
    """Signs and checks what replicas ask each other."""

    def __init__(self, key: bytes, now: Callable[[], float]) -> None:
        self._key = key
        self._now = now

    def sign(self, method: str, path: str, body: bytes) -> dict[str, str]:
        time = f"{self._now():.3f}"
        return {TIME: time, SIGNATURE: self._signature(method, path, body, time)}

    def verify(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Check that another replica of this store asks.

        :raises Unauthenticated: it does not, or its clock is wrong.
        """
        time, signature = headers.get(TIME, ""), headers.get(SIGNATURE, "")
        right = hmac.compare_digest(self._signature(method, path, body, time).encode(), signature.encode())
        try:
            fresh = abs(self._now() - float(time)) <= SKEW
        except ValueError:
            fresh = False
        if not (right and fresh):
            raise errors.Unauthenticated("no replica of this store signed this", hint="Check the replicas' clocks.")

    def _signature(self, method: str, path: str, body: bytes, time: str) -> str:
        text = "\n".join((method, path, hashlib.sha256(body).hexdigest(), time))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    async def ask(self, url: str, path: str, body: bytes) -> bytes:
        """Ask the replica at *url*.

        :raises Unavailable: it can't be reached, or can't answer now.
        """
        request = HTTPRequest(
            url.rstrip("/") + path,
            method="POST",
            headers=self.sign("POST", path, body) | {problems.REQUEST_ID: logs.current("request")},
            body=body,
            request_timeout=_TIMEOUT,
            connect_timeout=3.0,
            follow_redirects=False,
        )
        try:
            return (await AsyncHTTPClient().fetch(request)).body
        except HTTPClientError as error:
            if error.response is not None and error.response.body:
                try:
                    problem = msgspec.json.decode(error.response.body, type=_Problem)
                except msgspec.DecodeError:
                    raise errors.Unavailable(f"the replica at {url} answered {error.code}") from None
                raise errors.from_problem(problem.code, problem.detail) from None
            raise errors.Unavailable(f"the replica at {url} can't be reached") from None
        except OSError as error:
            raise errors.Unavailable(f"the replica at {url} can't be reached: {error}") from None


#: Answers (agent id, verb, body) with a body.
Answer = Callable[[str, str, bytes], Awaitable[bytes]]


class RelayHandler(problems.Named):
    """Where the other replicas ask."""

    def initialize(self, relay: Callable[[], Relay], answer: Answer) -> None:
        self._relay = relay
        self._answer = answer

    def check_xsrf_cookie(self) -> None:
        """No cookie means anything here."""

    async def post(self, agent_id: str, verb: str) -> None:
        try:
            self._relay().verify("POST", self.request.path, self.request.body, self.request.headers)
            body = await self._answer(agent_id, verb, self.request.body)
        except errors.GpuPlatformError as error:
            self.refuse(error)
        else:
            self.set_header("Content-Type", "application/msgpack")
            self.finish(body)
