"""The way out through a proxy that passes bytes on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jupyter_gpu_agent.dialling import dial, proxy_for
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from tests.cluster.pki import Authority

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Echo(WebSocketHandler):
    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))


@pytest.fixture
async def service() -> AsyncIterator[int]:
    server = HTTPServer(Application([("/", Echo)]))
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([sock])
    yield sock.getsockname()[1]
    server.stop()
    await server.close_all_connections()


class Proxy:
    """Understands CONNECT and nothing else."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        if b"200" not in self.answer:
            writer.close()
            return
        host, _, port = self.asked[-1].split()[1].rpartition(":")
        near, far = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, far), pump(near, writer))


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    made = Proxy()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    monkeypatch.setenv("http_proxy", f"http://ada:s%40crit@127.0.0.1:{server.sockets[0].getsockname()[1]}")
    yield made
    server.close()


def request(port: int) -> HTTPRequest:
    return HTTPRequest(f"ws://127.0.0.1:{port}/", connect_timeout=5, request_timeout=5, validate_cert=True)


async def test_it_goes_through_the_proxy_that_is_named(service: int, proxy: Proxy) -> None:
    connection = await dial(request(service), 2**20)
    await connection.write_message(b"x" * 100_000, binary=True)
    assert await connection.read_message() == b"x" * 100_000
    connection.close()
    assert await connection.read_message() is None
    (asked,) = proxy.asked
    assert asked.startswith(f"CONNECT 127.0.0.1:{service} HTTP/1.1\r\n")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'ada:s@crit').decode()}\r\n" in asked


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_goes_through_it_and_is_checked(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("https_proxy", os.environ["http_proxy"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.sign("service", "service", hosts=["127.0.0.1"]))
    server = HTTPServer(Application([("/", Echo)]), ssl_options=context)
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([sock])
    asked = request(sock.getsockname()[1])
    asked.url = asked.url.replace("ws:", "wss:")
    asked.ssl_options = ssl.create_default_context(cafile=authority.certificate if trusted else None)
    if trusted:
        connection = await dial(asked, 2**20)
        await connection.write_message("hello")
        assert await connection.read_message() == "hello"
        connection.close()
        assert await connection.read_message() is None
    else:
        with pytest.raises(ssl.SSLError):
            await dial(asked, 2**20)
    server.stop()
    await server.close_all_connections()


async def test_hosts_that_are_named_are_reached_directly(
    service: int, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "example.org,127.0.0.1")
    connection = await dial(request(service), 2**20)
    connection.close()
    assert await connection.read_message() is None
    assert proxy.asked == []


async def test_a_proxy_that_refuses_is_named_and_its_password_is_not(service: int, proxy: Proxy) -> None:
    proxy.answer = b"HTTP/1.1 403 Not for you\r\n\r\n"
    with pytest.raises(OSError, match="403 Not for you") as caught:
        await dial(request(service), 2**20)
    assert "crit" not in str(caught.value)


def test_which_proxy_serves_which_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("wss://gpu.example.org/") is None
    monkeypatch.setenv("https_proxy", "proxy.example.org:3128")
    found = proxy_for("wss://gpu.example.org/")
    assert found is not None
    assert (found.hostname, found.port) == ("proxy.example.org", 3128)
    assert proxy_for("ws://gpu.example.org/") is None
