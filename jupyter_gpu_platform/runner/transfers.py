"""Values on their way between the agent and the attempt's directory: fetched before the code, uploaded after it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
from typing import Any

from .link import FAILURES, Again, Backoff, Link

#: read and written at once (bytes)
CHUNK = 2**20
#: An object that comes damaged this often is damaged where it is kept.
DAMAGED = 3
#: Answers after which an upload isn't tried again; 404: the agent is older than this runner and takes none.
REFUSALS = (400, 404, 413)


class Refused(Exception):
    """The object will never come, or never be taken."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def hashed(path: str) -> Any:
    """Give the SHA-256 of a file, to go on with."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for data in iter(lambda: file.read(CHUNK), b""):
            sha.update(data)
    return sha


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


class Transfers:
    """Each object goes in a thread of its own, tried again until it is through or refused.

    What comes of it is told as an event of *link*: ``object`` (digest), ``object_failed`` and ``upload_failed``
    ({code, message}), ``uploaded`` ({digest, size}), ``fenced``.

    :param folder: where fetched objects lie, named by their digests.
    """

    def __init__(self, link: Link, folder: str) -> None:
        self._link = link
        self._folder = folder
        self._given_up = threading.Event()

    def path(self, digest: str) -> str:
        return os.path.join(self._folder, digest)

    def give_up(self) -> None:
        """Upload no further."""
        self._given_up.set()

    # --- in

    def fetch(self, digest: str, size: int) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._link.thread(self._fetch, digest, size)

    def _fetch(self, digest: str, size: int) -> None:
        part = self.path(digest) + ".part"
        backoff, damaged = Backoff(self._link.closed), 0
        while not self._link.closed.is_set():
            had = _size(part)
            connection = self._link.agent.connection()
            try:
                found = self._receive(connection, digest, part)
                if _size(part) == size and found == digest:
                    os.replace(part, self.path(digest))
                    self._link.tell("object", digest)
                    return
                if _size(part) >= size:
                    os.unlink(part)
                    damaged += 1
                if damaged == DAMAGED:
                    raise Refused("object_missing", "the values of the job came damaged; submit it again")
            except Refused as error:
                self._link.tell("object_failed", {"code": error.code, "message": str(error)})
                return
            except (Again, *FAILURES):
                self._link.tell("away")
            finally:
                connection.close()
            if _size(part) > had:
                backoff.reset()
            backoff.pause()

    def _receive(self, connection: http.client.HTTPConnection, digest: str, part: str) -> str:
        """Go on where an earlier try ended, if the agent can; return the SHA-256 of all that is there then."""
        headers = dict(self._link.headers)
        if _size(part):
            headers["Range"] = "bytes=%d-" % _size(part)
        connection.request("GET", "%s/objects/%s" % (self._link.path, digest), headers=headers)
        response = connection.getresponse()
        if response.status == 404:
            said = json.loads(response.read().decode() or "{}").get("message")
            raise Refused("object_missing", said or "the values of the job are gone; submit it again")
        if response.status not in (200, 206):
            raise Again
        goes_on = response.status == 206
        sha = hashed(part) if goes_on else hashlib.sha256()
        with open(part, "ab" if goes_on else "wb") as file:
            while True:
                data = response.read(CHUNK)
                if not data:
                    return str(sha.hexdigest())
                sha.update(data)
                try:
                    file.write(data)
                    file.flush()
                except OSError as error:
                    said = "the job's disk can't hold its values: %s" % error.strerror
                    raise Refused("values_failed", said) from error

    # --- out

    def upload(self, path: str) -> None:
        self._link.thread(self._upload, path)

    def _upload(self, path: str) -> None:
        digest, size = hashed(path).hexdigest(), os.path.getsize(path)
        backoff = Backoff(self._link.closed)
        while not self._link.closed.is_set() and not self._given_up.is_set():
            connection = self._link.agent.connection()
            try:
                status, answer = self._send(connection, path, digest, size)
                if self._tell_end(status, answer, {"digest": digest, "size": size}):
                    return
            except FAILURES:
                self._link.tell("away")
            finally:
                connection.close()
            backoff.pause()

    def _tell_end(self, status: int, answer: Any, ref: dict[str, Any]) -> bool:
        """Tell of an answer that is final; returns whether it is."""
        if status == 200:
            self._link.tell("uploaded", ref)
        elif status == 410:
            self._link.tell("fenced")
        elif status in REFUSALS:
            code = "too_large" if status == 413 else "not_kept"
            said = answer.get("message") or "this cluster's agent takes no values"
            self._link.tell("upload_failed", {"code": code, "message": said})
        return status in (200, 410, *REFUSALS)

    def _send(self, connection: http.client.HTTPConnection, path: str, digest: str, size: int) -> tuple[int, Any]:
        connection.putrequest("PUT", "%s/objects/%s?incarnation=%s" % (self._link.path, digest, self._link.incarnation))
        headers = dict(self._link.headers)
        headers.update({"Content-Type": "application/octet-stream", "Content-Length": str(size)})
        for name, value in headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders()
            with open(path, "rb") as file:
                for data in iter(lambda: file.read(CHUNK), b""):
                    if self._given_up.is_set():
                        return 0, {}
                    connection.send(data)
        except BrokenPipeError:
            pass  # what is refused is refused before its end: the answer says why
        response = connection.getresponse()
        return response.status, json.loads(response.read().decode() or "{}")
