"""The log of the programs that serve: one entry a line, each with the ids of what it is about.

Whoever begins to work for a request, an agent, a job or an attempt says so with `about`; each entry made meanwhile, in
that task and those it starts, carries these ids, however deep it is made. A secret has no way into an entry: no call
logs a body, a header, an environment or an answer, and libraries that would are kept quiet.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import time
from collections.abc import Iterator, Mapping

import msgspec

_ids: contextvars.ContextVar[Mapping[str, str | int]] = contextvars.ContextVar("jupyter_gpu_ids", default={})  # noqa: B039 -- never changed in place

#: They log each request, each statement with its values, or each look of an event loop: nothing that ours don't say.
_NOISY = ("tornado.access", "tornado.curl_httpclient", "alembic", "asyncio", "fsspec", "httpx", "httpcore", "traitlets")
#: Statements carry values, such as a job's environment, also in the texts of errors: no level shows them.
_SECRET = ("sqlalchemy", "psycopg", "botocore", "urllib3")


@contextlib.contextmanager
def about(**ids: str | int) -> Iterator[None]:
    """Give the entries made meanwhile these ids: ``request``, ``agent``, ``job``, ``attempt``."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def begin(**ids: str | int) -> None:
    """Like `about`, for the rest of the current task."""
    _ids.set({**_ids.get(), **ids})


def current(name: str) -> str:
    """Return an id of what is being worked for; empty where there is none."""
    return str(_ids.get().get(name, ""))


class JsonLines(logging.Formatter):
    """Formats an entry as one JSON object on one line; an exception's traceback is inside it."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids.get(),
        }
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


class TextLines(logging.Formatter):
    """Formats an entry for people; a traceback follows it on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        ids = "".join(f" {name}={value}" for name, value in _ids.get().items())
        message = record.getMessage().replace("\n", "\n    ")
        line = f"{when} {record.levelname.lower():7} {record.name.removeprefix('jupyter_gpu_')}: {message}{ids}"
        if record.exc_info and record.exc_info[0]:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(level: str, form: str) -> None:
    """Send everything of *level* and above to stderr.

    :param form: ``json`` or ``text``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in (*_NOISY, *_SECRET):
        logging.getLogger(noisy).setLevel(logging.WARNING)
