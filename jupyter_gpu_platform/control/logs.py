"""The service's log: one JSON object on one line per entry, each with the id of the request that it belongs to."""

from __future__ import annotations

import logging
import sys

import msgspec

from .api.base import request_id


class JsonLines(logging.Formatter):
    """Formats an entry as one line; an exception's traceback is inside it."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_id.get():
            entry["request_id"] = request
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def configure(level: str) -> None:
    """Send everything of *level* and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Their own reports of each request and each migration step say nothing that ours don't.
    for noisy in ("tornado.access", "alembic", "asyncio", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
