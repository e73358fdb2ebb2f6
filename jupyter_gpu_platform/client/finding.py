"""Which platform is meant: the one named by arguments or environment, or else this machine's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

from .. import errors
from . import local
from .protocol import Endpoint


def resolver(url: str | None, token: str | None, *, start: bool) -> Callable[[], Endpoint]:
    """Return what finds the platform, now and again after it could not be reached."""
    url = url or os.environ.get("JUPYTER_GPU_URL")
    if not url:
        return local_endpoint if start else running_endpoint
    token = token or os.environ.get("JUPYTER_GPU_TOKEN", "")
    if not token:
        raise errors.Unauthenticated(f"there is no token for {url}", hint="Set JUPYTER_GPU_TOKEN, or pass token=….")
    # Several replicas may be named, with commas between: each look takes the next one.
    replicas = itertools.cycle([Endpoint(one.strip().rstrip("/"), token) for one in url.split(",") if one.strip()])
    return lambda: next(replicas)


def local_endpoint() -> Endpoint:
    """Return this machine's platform, started if need be."""
    runtime = local.ensure()
    return Endpoint(runtime.url, runtime.token, runtime)


def running_endpoint() -> Endpoint:
    """Return this machine's platform as it runs.

    :raises LocalPlatformError: it doesn't.
    """
    runtime = local.find()
    if runtime is None:
        raise errors.LocalPlatformError("no platform runs on this machine", hint="Start it with `jupyter gpu up`.")
    return Endpoint(runtime.url, runtime.token, runtime)
