"""The Kubernetes API as the executor uses it: objects are plain dicts, errors are told apart by what can be done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException

from jupyter_gpu_platform import errors

log = logging.getLogger(__name__)

Object = dict[str, Any]

#: who the fields belong to that server-side apply sets
MANAGER = "jupyter-gpu-platform"
#: seconds that an ordinary request may take
PATIENCE = 30.0
#: seconds after which the server ends a watch that would go on; a bookmark comes about once a minute
WATCH = 300
#: answers that another try may change
TRANSIENT = frozenset([408, 409, 429, 500, 502, 503, 504])


class Refused(Exception):
    """The API server will not do it, now or later; the text is its own.

    :param reason: Kubernetes' word for why, such as ``Invalid``.
    """

    def __init__(self, message: str, *, http_status: int, reason: str = "") -> None:
        super().__init__(message)
        self.http_status = http_status
        self.reason = reason


class Expired(Exception):
    """The watch goes on from a version that is no longer kept: list again."""


class Api:
    """One connection pool to one API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def close(self) -> None:
        await self._client.close()

    # --- objects

    async def apply(self, path: str, manifest: Object) -> Object:
        """Make the object be as the manifest says, whether it is there or not; returns it as it is then.

        :param path: of its kind, such as ``/api/v1/namespaces/default/secrets``.
        :raises Refused: it is not allowed, or not understood.
        :raises Unavailable: not now.
        """
        query = {"fieldManager": MANAGER, "force": "true"}
        name = manifest["metadata"]["name"]
        return await self._ask("PATCH", f"{path}/{quote(name)}", query, manifest, "application/apply-patch+yaml")

    async def get(self, path: str) -> Object | None:
        return await self._found(self._ask("GET", path))

    async def patch(self, path: str, body: Object) -> Object | None:
        """Merge *body* into an object; returns it as it is then, None where there is none."""
        return await self._found(self._ask("PATCH", path, {}, body, "application/merge-patch+json"))

    async def delete(self, path: str, *, grace: int | None = None, uid: str = "") -> None:
        """Delete an object and what it owns; one that isn't there is deleted already.

        :param uid: only where it is this very one.
        """
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._found(self._ask("DELETE", path, {}, options))

    async def list(self, path: str, **query: str) -> Object:
        """List objects, page by page; returns the list as if it had come at once."""
        found: Object = {"items": []}
        more: dict[str, str] = {}
        while True:
            page = await self._ask("GET", path, {"limit": "500", **query, **more})
            found = {**page, "items": found["items"] + (page.get("items") or [])}
            token = page["metadata"].get("continue")
            if not token:
                return found
            more = {"continue": token}

    async def text(self, path: str, **query: str) -> bytes:
        """Read what isn't JSON, such as a container's log."""
        response = await self._send("GET", f"{path}?{urlencode(query)}", None, "", PATIENCE)
        async with response:
            body = await response.read()
            if response.status >= 400:
                raise _error(response.status, body)
            return body

    @staticmethod
    async def _found(asking: Any) -> Object | None:
        try:
            found: Object = await asking
        except Refused as error:
            if error.http_status == 404:
                return None
            raise
        return found

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        url = f"{path}?{urlencode(query)}" if query else path
        response = await self._send(method, url, body, content_type, PATIENCE)
        async with response:
            try:
                content = await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise _away(error) from None
        if response.status >= 400:
            raise _error(response.status, content)
        answer: Object = json.loads(content)
        return answer

    async def _send(
        self, method: str, url: str, body: Object | None, content_type: str, seconds: float | None
    ) -> aiohttp.ClientResponse:
        client = self._client
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=PATIENCE, sock_read=PATIENCE + WATCH)
        try:
            await client.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
            answer = await client.call_api(
                method, client.configuration.host + url, headers, body, _request_timeout=timeout
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(error) from None
        except ApiException as error:
            raise _error(error.status or 0, (error.body or "").encode()) from None
        response: aiohttp.ClientResponse = answer.response
        return response

    # --- watching

    async def watch(self, path: str, version: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """Give each change after *version*: (``ADDED`` | ``MODIFIED`` | ``DELETED`` | ``BOOKMARK``, object).

        Ends when the server ends it, which it does now and then.

        :raises Expired: the version is too old.
        :raises Unavailable: the connection broke.
        """
        wanted = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        wanted |= {"timeoutSeconds": str(WATCH), **query}
        response = await self._send("GET", f"{path}?{urlencode(wanted)}", None, "", None)
        async with response:
            if response.status == 410:
                raise Expired
            if response.status >= 400:
                raise _error(response.status, await response.read())
            try:
                async for line in _lines(response.content):
                    change = json.loads(line)
                    if change["type"] == "ERROR":
                        if change["object"].get("code") == 410:
                            raise Expired
                        raise _error(change["object"].get("code") or 500, line)
                    yield change["type"], change["object"]
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _away(error) from None


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Give each whole line, however long: what aiohttp reads as a line may have 128 KiB, and an object more."""
    rest = bytearray()
    async for data in content.iter_any():
        rest += data
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield bytes(line)


def _away(error: BaseException) -> errors.Unavailable:
    return errors.Unavailable(f"the Kubernetes API can't be reached: {error or type(error).__name__}")


def _error(status: int, body: bytes) -> Exception:
    """Keep the server's own text: it names the object and the rule."""
    message, reason = body.decode(errors="replace")[:2000], ""
    with contextlib.suppress(ValueError, AttributeError):
        said = json.loads(body)
        said = said.get("object", said)
        message, reason = str(said.get("message") or message), str(said.get("reason") or "")
    if status in TRANSIENT or status == 401:  # a token that is just being renewed
        return errors.Unavailable(f"the Kubernetes API: {message}")
    return Refused(message, http_status=status, reason=reason)


class Mirrored:
    """All objects of one kind and selection, kept up to date: listed, then watched, and listed again when need be.

    :param changed: called with each object that came, changed or went, and whether it is there.
    :param failed: called when a look failed; the next one comes.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        changed: Callable[[Object, bool], None],
        failed: Callable[[], None],
        **query: str,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.path = path
        self._api = api
        self._changed = changed
        self._failed = failed
        self._query = query
        self._version = ""

    async def list(self) -> None:
        """Take in all there is; what was here and is no more is told as gone."""
        found = await self._api.list(self.path, **self._query)
        kind = str(found.get("kind", "")).removesuffix("List")
        now = {item["metadata"]["uid"]: {"kind": kind, **item} for item in found["items"]}
        gone = [item for uid, item in self.objects.items() if uid not in now]
        self.objects, self._version = now, found["metadata"]["resourceVersion"]
        for item in gone:
            self._changed(item, False)
        for item in now.values():
            self._changed(item, True)

    async def follow(self) -> None:
        """Keep up to date, for ever."""
        pause = 0.5
        while True:
            try:
                if not self._version:
                    await self.list()
                async for kind, item in self._api.watch(self.path, self._version, **self._query):
                    pause = 0.5
                    self._take(kind, item)
            except Expired:
                log.info("%s changed more than is kept: listing it again", self.path)
                self._version = ""
            except Exception as error:  # the loop's edge: who sees nothing any more would wait for ever
                self._failed()
                expected = isinstance(error, errors.Unavailable | Refused)
                log.warning(
                    "%s can't be watched, trying again: %s", self.path, error, exc_info=None if expected else error
                )
                if not isinstance(error, errors.Unavailable):
                    self._version = ""
                await asyncio.sleep(pause)
                pause = min(2 * pause, 10.0)

    def _take(self, kind: str, item: Object) -> None:
        self._version = item["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        uid = item["metadata"]["uid"]
        if kind == "DELETED":
            self.objects.pop(uid, None)
        else:
            self.objects[uid] = item
        self._changed(item, kind != "DELETED")
