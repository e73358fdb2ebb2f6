"""What both clients tell httpx, and how its errors become ours."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys

import httpx

from .. import errors
from .protocol import Endpoint, Failure, Trouble

#: seconds within which a connection is made, and an answer begins: a create waits for its commit
CONNECT, ANSWER = 5.0, 10.0
#: seconds of silence on a stream after which it counts as dead; the service sends something every 10
STREAM_SILENCE = 30.0
#: an upload's answer waits until a disk or an object store has all of it
UPLOAD_TIMEOUT = httpx.Timeout(30.0, connect=CONNECT, read=300.0)


def _is_foreign(_record: logging.LogRecord) -> bool:
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment] # the outermost frame has none behind it
        if str(frame.f_globals.get("__name__", "")).startswith(f"{__package__}."):
            return False
    return True


# httpx logs each request as INFO. A person who has turned that on means their own requests: ours would stand under
# every cell that runs as a job.
logging.getLogger("httpx").addFilter(_is_foreign)


def checked(url: str) -> str:
    """Return *url* without its last slash.

    :raises InvalidRequest: it is not the URL of a web server.
    """
    if not url.startswith(("http://", "https://")):
        raise errors.InvalidRequest(
            f"{url!r} is not the platform's URL", hint="Give it like https://gpu.example.org (JUPYTER_GPU_URL)."
        )
    return url.rstrip("/")


def uses_environment(url: str) -> bool:
    """Say whether proxy settings of the environment apply: never for this machine's own addresses."""
    host = httpx.URL(url).host
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def call_timeout() -> httpx.Timeout:
    """Return the timeouts of a call.

    :raises InvalidRequest: JUPYTER_GPU_TIMEOUT is no time.
    """
    said = os.environ.get("JUPYTER_GPU_TIMEOUT") or str(ANSWER)
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise errors.InvalidRequest(
            f"JUPYTER_GPU_TIMEOUT is {said!r}", hint="Give the seconds that an answer may take, such as 10."
        )
    return httpx.Timeout(30.0, connect=CONNECT, read=seconds)


def stream_timeout(remaining: float | None) -> httpx.Timeout:
    """Return the timeouts of a stream that is wanted for *remaining* seconds (None: for ever)."""
    silence = STREAM_SILENCE if remaining is None else min(STREAM_SILENCE, max(remaining, 0.01))
    return httpx.Timeout(30.0, connect=CONNECT, read=silence)


def lost(error: httpx.TransportError, endpoint: Endpoint) -> Failure:
    """Describe a request that got no answer."""
    unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError))
    what = str(error) or type(error).__name__
    if isinstance(error, httpx.ReadTimeout):
        what = "it takes connections and is silent"
    if endpoint.runtime is not None and endpoint.runtime.suspended:
        pid = endpoint.runtime.pid
        message = f"the platform on this machine is suspended: `kill -CONT {pid}` lets it go on"
        hint = "`jupyter gpu down` ends it. Jobs that run are not touched."
    elif endpoint.runtime is not None:
        log = f"{endpoint.runtime.state_dir}/logs/control.log"
        hint = f"See {log}; `jupyter gpu down` and `jupyter gpu up` start it anew. Jobs that run are not touched."
        message = f"the platform on this machine (process {endpoint.runtime.pid}) doesn't answer: {what}"
    else:
        hint = "Check JUPYTER_GPU_URL and the network; jobs that run are not touched."
        message = f"{endpoint.url} can't be reached: {what}"
    return Failure(Trouble.UNSENT if unsent else Trouble.CUT, errors.Unavailable(message, hint=hint))


def closed_early(endpoint: Endpoint) -> Failure:
    """Describe a stream that ended in good order before its end: the service is going away."""
    return Failure(Trouble.CUT, errors.Unavailable(f"{endpoint.url} closed the connection"))
