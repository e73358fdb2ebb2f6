"""An API server that is short of breath: in front of the real one, it turns away some requests with 429 and 500."""

from __future__ import annotations

import http.client
import http.server
import json
import random
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from .control_plane import ControlPlane


class FaultyApi:
    """Plain HTTP on loopback; speaks to the real API server as admin.

    :param share: of requests that are refused.
    """

    def __init__(self, plane: ControlPlane, share: float) -> None:
        self._at = urlsplit(plane.url)
        self._context = ssl.create_default_context(cafile=str(plane.folder / "pki" / "ca.crt"))
        self._context.load_cert_chain(plane.folder / "pki" / "admin.crt", plane.folder / "pki" / "admin.key")
        self.share = share
        #: answers given in the real one's place
        self.refused = 0
        self._chance = random.Random(1)
        self._lock = threading.Lock()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                api._serve(self)

            do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 -- http.server looks for these

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def kubeconfig(self, path: Path) -> Path:
        """Write what leads a client here."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(content))
        return path

    @contextmanager
    def listening(self) -> Iterator[FaultyApi]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _serve(self, asked: http.server.BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
        with self._lock:
            refused = self._chance.random() < self.share
            status = self._chance.choice((429, 500))
            self.refused += refused
        if refused:
            said = {"kind": "Status", "code": status, "message": "out of breath", "reason": "Faulty"}
            _answer(asked, status, json.dumps(said).encode())
        else:
            self._pass_on(asked, body)

    def _pass_on(self, asked: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        real = http.client.HTTPSConnection(self._at.hostname or "", self._at.port, context=self._context)
        headers = {name: value for name, value in asked.headers.items() if name in ("Accept", "Content-Type")}
        try:
            real.request(asked.command, asked.path, body, headers)
            answer = real.getresponse()
            if "watch=true" not in asked.path:
                _answer(asked, answer.status, answer.read())
                return
            asked.send_response(answer.status)
            asked.send_header("Connection", "close")
            asked.end_headers()
            asked.close_connection = True
            while data := answer.read1(65536):
                asked.wfile.write(data)
        except OSError:
            asked.close_connection = True  # either side went away
        finally:
            real.close()


def _answer(asked: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    asked.send_response(status)
    asked.send_header("Content-Type", "application/json")
    asked.send_header("Content-Length", str(len(body)))
    asked.end_headers()
    asked.wfile.write(body)
