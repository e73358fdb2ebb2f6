"""Opening a WebSocket, through an HTTP proxy where the environment names one: clusters often have no other way out.

Tornado's WebSocket client knows no proxies. ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` mean what they mean
elsewhere.
"""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Awaitable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from tornado.httpclient import HTTPRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

#: bytes that a proxy's answer may have
_MOST_ANSWERED = 64 * 1024


def dial(request: HTTPRequest, max_message_size: int) -> Awaitable[WebSocketClientConnection]:
    """Open the WebSocket that *request* asks for.

    :param max_message_size: bytes.
    """
    proxy = proxy_for(request.url)
    if proxy is None:
        return websocket_connect(request, max_message_size=max_message_size)
    connection = WebSocketClientConnection(request, max_message_size=max_message_size)
    # It connects in its own next step.
    connection.tcp_client = _Tunnel(proxy)
    return connection.connect_future


def proxy_for(url: str) -> SplitResult | None:
    """Say through which proxy a URL is reached; None where directly."""
    parts = urlsplit(url)
    secure = parts.scheme in ("https", "wss")
    named = urllib.request.getproxies().get("https" if secure else "http")
    if not named or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(named if "://" in named else f"http://{named}")


class _Tunnel(TCPClient):
    """Connects through a proxy, which is asked to pass bytes on."""

    def __init__(self, proxy: SplitResult) -> None:
        super().__init__()
        self._proxy = proxy

    async def connect(self, host: str, port: int, *, ssl_options: Any = None, **options: Any) -> IOStream:  # type: ignore[override]  # as it is called
        """Connect as `TCPClient` does.

        :raises OSError: the proxy can't be reached, or refuses.
        """
        proxy = self._proxy
        at = f"{proxy.hostname}:{proxy.port or 80}"  # without its user and password
        stream = await super().connect(proxy.hostname or "", proxy.port or 80, **options)
        try:
            await stream.write(_ask(f"[{host}]" if ":" in host else host, port, proxy))
            head = await stream.read_until(b"\r\n\r\n", max_bytes=_MOST_ANSWERED)
            answer = head.split(b"\r\n", 1)[0].decode("latin-1")
            if answer.split(" ")[1:2] != ["200"]:
                raise OSError(f"the proxy {at} doesn't connect to {host}:{port}: {answer}")
        except StreamClosedError as error:
            raise OSError(f"the proxy {at} closed the connection to {host}:{port}") from error
        except BaseException:
            stream.close()
            raise
        # This one gives its socket up to the new one, which closes it where TLS fails.
        return await stream.start_tls(False, ssl_options, server_hostname=host) if ssl_options else stream


def _ask(host: str, port: int, proxy: SplitResult) -> bytes:
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if proxy.username is not None:
        secret = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
