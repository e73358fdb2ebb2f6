"""Problem documents (RFC 9457): the one form in which every error leaves the service."""

from __future__ import annotations

import http
import re
import secrets

import msgspec
from tornado.web import RequestHandler

from .. import errors, logs

MEDIA_TYPE = "application/problem+json"
#: seconds after which a refused caller may try again
RETRY_AFTER = 1

#: names a request, in its answer and in the log; a caller may choose it
REQUEST_ID = "X-Request-Id"
_SAFE_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")

_AT_PATH = re.compile(r"^(?P<what>.*) - at `(?P<path>[^`]+)`$", re.DOTALL)
# An escaped NUL: \u0000 whose backslash is not itself escaped.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. *code* is stable, for programs; *detail* and *hint* are for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str = ""
    #: names this request in the service's log
    request_id: str = ""


def document(error: errors.GpuPlatformError, request_id: str = "") -> bytes:
    """Make the problem document of *error*."""
    problem = Problem(
        type=f"urn:jupyter-gpu-platform:{error.code}",
        title=http.HTTPStatus(error.status).phrase,
        status=error.status,
        code=error.code,
        detail=error.message,
        hint=error.hint,
        request_id=request_id,
    )
    return msgspec.json.encode(problem)


class Named(RequestHandler):
    """A handler whose every answer, and every entry that it logs, names the request; its refusals have the one form."""

    request_id = ""

    def set_default_headers(self) -> None:
        if not self.request_id:
            given = self.request.headers.get(REQUEST_ID, "")
            self.request_id = given if _SAFE_ID.match(given) else secrets.token_hex(8)
            logs.begin(request=self.request_id)
        self.set_header(REQUEST_ID, self.request_id)

    def refuse(self, error: errors.GpuPlatformError) -> None:
        """Answer with a problem document."""
        self.set_status(error.status)
        self.set_header("Content-Type", MEDIA_TYPE)
        if isinstance(error, errors.TooManyRequests | errors.Unavailable):
            self.set_header("Retry-After", str(RETRY_AFTER))
        if isinstance(error, errors.Unauthenticated):
            self.set_header("WWW-Authenticate", 'Bearer realm="gpu-platform"')
        self.finish(document(error, self.request_id))


def invalid(error: Exception, what: str) -> errors.InvalidRequest:
    """Say in the caller's words what was wrong with *what* ("the body", "the query")."""
    if isinstance(error, msgspec.ValidationError):
        match = _AT_PATH.match(str(error))
        where, why = (match["path"], match["what"]) if match else ("$", str(error))
        place = what if where == "$" else f"{what}, at {where.removeprefix('$.')}"
        return errors.InvalidRequest(f"{place}: {_plain(why)}", hint="GET /api/v1/openapi.json describes every field.")
    return errors.InvalidRequest(f"{what} is not valid JSON: {error}", hint="Send one JSON object, in UTF-8.")


def _plain(why: str) -> str:
    return why[:1].lower() + why[1:].replace("`", "'")


def refuse_nul(content: bytes) -> None:
    """Refuse JSON with NUL in a string: no environment, argument or database column can hold one."""
    # The plain look first: it is a hundred times as fast as the exact one, and almost always enough.
    if b"u0000" in content and _NUL.search(content):
        raise errors.InvalidRequest("the body holds a NUL character (\\u0000)", hint="Remove it.")
