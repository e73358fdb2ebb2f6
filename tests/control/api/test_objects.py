"""Objects over HTTP: what comes in whole is kept for its owner, and what doesn't leaves nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fsspec.implementations.local import LocalFileSystem

from jupyter_gpu_platform.control import objects
from jupyter_gpu_platform.model.jobs import MAX_OBJECT_BYTES

from .conftest import COMMAND, Service

DATA = b"0123456789" * 150_000


def named(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def path(data: bytes) -> str:
    return f"/api/v1/objects/{named(data)}"


def cell(data: bytes, size: int | None = None) -> dict[str, Any]:
    values = {"digest": named(data), "size": len(data) if size is None else size}
    return {"source": {"type": "cell", "code": "1", "values": values}}


def files(service: Service) -> list[Path]:
    directory = Path(urlsplit(service.server.settings.objects_url).path)
    return sorted(directory.iterdir()) if directory.exists() else []


def connected(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(service.url).port or 0))


@pytest.fixture
def started(own_service: Callable[..., Service]) -> Service:
    return own_service()


def test_what_is_put_is_got_by_its_owner_and_admins_alone(started: Service) -> None:
    with started.client() as user:
        assert user.head(path(DATA)).status_code == 404
        made = user.put(path(DATA), content=DATA)
        assert (made.status_code, made.json()) == (201, {"digest": named(DATA), "size": len(DATA)})
        assert user.put(path(DATA), content=DATA).status_code == 200
        looked = user.head(path(DATA))
        assert (looked.status_code, looked.headers["Content-Length"]) == (200, str(len(DATA)))
        assert user.get(path(DATA)).content == DATA
    with started.client("other") as other:
        assert other.get(path(DATA)).status_code == 404
        assert other.put(path(DATA), content=DATA).status_code == 201
    with started.client("admin") as admin:
        assert admin.get(path(DATA)).content == DATA
    assert len(files(started)) == 2


def test_an_empty_object_is_one(started: Service) -> None:
    with started.client() as user:
        assert user.put(path(b"")).status_code == 201
        assert user.get(path(b"")).content == b""


def test_a_wrong_digest_leaves_nothing(started: Service) -> None:
    with started.client() as user:
        answer = user.put(path(DATA), content=DATA[:-1])
        assert (answer.status_code, answer.json()["code"]) == (400, "digest_mismatch")
        assert user.get(path(DATA)).status_code == 404
    assert files(started) == []


@pytest.mark.parametrize("name", ["x", "A" * 64, "0" * 63, "0" * 65])
def test_objects_have_proper_names(service: Service, client: httpx.Client, name: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        assert client.request(method, f"/api/v1/objects/{name}").status_code == 400


def test_more_than_the_limit_is_refused_before_it_comes(started: Service) -> None:
    with started.client() as user:
        token, target = user.headers["Authorization"], path(b"x")
    head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {MAX_OBJECT_BYTES + 1}\r\n"
    dropped = 4 * started.server.settings.limits.max_body_bytes
    with connected(started) as raw:
        # So much it reads and drops, so that the sender can read the refusal; then it closes the connection.
        raw.sendall(f"{head}\r\n".encode() + b"x" * (dropped + 1))
        assert b" 413 " in raw.recv(1000).split(b"\r\n")[0]
    assert files(started) == []


def test_a_body_that_breaks_off_leaves_nothing(started: Service) -> None:
    token = started.tokens["user"]
    with connected(started) as raw:
        head = f"PUT {path(DATA)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        raw.sendall(f"{head}Content-Length: {len(DATA)}\r\n\r\n".encode() + DATA[:-1])
        until(lambda: bool(files(started)))
    until(lambda: files(started) == [])
    with started.client() as user:
        assert user.head(path(DATA)).status_code == 404


def until(look: Callable[[], bool]) -> None:
    looked = threading.Event()
    for _ in range(1000):
        if look():
            return
        looked.wait(0.01)
    raise AssertionError("it never came to be")


class FullFile:
    """A file on a disk that is full."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        self._file.close()


class FullDisk(LocalFileSystem):
    """A file system on which files can be made but not filled."""

    cachable = False

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return FullFile(super().open(*args, **kwargs))


def test_a_full_disk_is_said_and_leaves_nothing(started: Service) -> None:
    started.services.objects._files._fs = FullDisk()
    with started.client() as user:
        answer = user.put(path(DATA), content=DATA)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_full")
    assert "Free disk space" in answer.json()["hint"]
    assert files(started) == []


def test_a_file_that_is_gone_is_a_404(started: Service) -> None:
    with started.client() as user:
        user.put(path(DATA), content=DATA)
        files(started)[0].unlink()
        assert user.get(path(DATA)).status_code == 404


@pytest.mark.parametrize("batch", [False, True])
def test_a_job_that_names_a_missing_object_is_refused_until_it_is_there(started: Service, batch: bool) -> None:
    spec = cell(DATA)
    where, body = ("/api/v1/job-batches", {"jobs": [COMMAND, spec]}) if batch else ("/api/v1/jobs", spec)
    with started.client("other") as other:
        other.put(path(DATA), content=DATA)  # another's doesn't count
    with started.client() as user:
        refused = user.post(where, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "object_missing")
        assert "Upload" in refused.json()["hint"]
        assert user.get("/api/v1/jobs").json()["items"] == []
        user.put(path(DATA), content=DATA)
        assert user.post(where, json=body).status_code == 201


def test_a_wrong_size_is_refused(started: Service) -> None:
    with started.client() as user:
        user.put(path(DATA), content=DATA)
        answer = user.post("/api/v1/jobs", json=cell(DATA, size=1))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


def test_what_no_job_holds_goes_a_day_after_its_last_use(own_service: Callable[..., Service]) -> None:
    clock = Clock()
    service = own_service(now=clock)
    sweep = service.services.objects.sweep
    with service.client() as user:
        user.put(path(b"held"), content=b"held")
        user.put(path(b"loose"), content=b"loose")
        job = user.post("/api/v1/jobs", json=cell(b"held")).json()["id"]
        clock.time += objects.UNHELD_SECONDS - 10
        assert service.call(sweep()) == 0
        assert user.head(path(b"loose")).status_code == 200  # a use
        clock.time += objects.UNHELD_SECONDS - 10
        assert service.call(sweep()) == 0
        clock.time += 20
        assert service.call(sweep()) == 1
        assert user.head(path(b"loose")).status_code == 404
        assert user.get(path(b"held")).content == b"held"
        assert len(files(service)) == 1
        # A deleted job lets go of its objects; a day later they are gone.
        assert user.post(f"/api/v1/jobs/{job}/cancel").status_code == 202
        assert user.delete(f"/api/v1/jobs/{job}").status_code == 204
        clock.time += objects.UNHELD_SECONDS - 10
        assert service.call(sweep()) == 0
        clock.time += 20
        assert service.call(sweep()) == 1
    assert files(service) == []


def test_a_file_that_no_object_names_goes_too(own_service: Callable[..., Service]) -> None:
    clock = Clock()
    service = own_service(now=clock)
    with service.client() as user:
        user.put(path(b"kept"), content=b"kept")
        user.post("/api/v1/jobs", json=cell(b"kept"))
    (kept,) = files(service)
    left = kept.with_name(kept.name[:11] + "of a service that was killed")
    left.write_bytes(b"half")
    service.call(service.services.objects.sweep())
    assert files(service) == sorted([kept, left])
    clock.time += objects.UNHELD_SECONDS + 1
    service.call(service.services.objects.sweep())
    assert files(service) == [kept]
