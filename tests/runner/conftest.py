"""A small real agent for supervisors to talk to: HTTP over a Unix socket, as the runner link wants it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import pathlib
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import jupyter_gpu_platform.runner
from jupyter_gpu_platform.runner.values import Packer, Unpacked

RUNNER = pathlib.Path(jupyter_gpu_platform.runner.__file__).parent
SUPERVISE = (sys.executable, "-I", "-S", str(RUNNER), "supervise")
TOKEN = "token-of-the-attempt"


def wait_until(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for something in another process that nothing tells us of."""
    deadline = time.monotonic() + seconds
    tick = threading.Event()
    while not (value := check()):
        assert time.monotonic() < deadline, "it did not come true in time"
        tick.wait(0.01)
    return value


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    agent: FakeAgent

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "runner"

    def log_message(self, *args: Any) -> None:
        """Tests read what the agent got, not its log."""

    def _serve(self) -> None:
        agent = self.server.agent
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if "/objects/" in url.path:
            return self._serve_object(agent, url.path.rpartition("/")[2], body)
        answer = getattr(agent, "on_" + url.path.rpartition("/")[2])(query, body)
        if answer is None:
            self.close_connection = True
            return None
        return self._answer(answer[0], json.dumps(answer[1]).encode())

    def _serve_object(self, agent: FakeAgent, digest: str, body: bytes) -> None:
        if self.command == "PUT":
            status, content = agent.put(digest, body)
            return self._answer(status, json.dumps(content).encode())
        if agent._trouble("objects"):
            return self._answer(503, b"{}")
        data = agent.objects.get(digest)
        if data is None:
            return self._answer(404, b'{"code": "object_missing", "message": "gone"}')
        begin = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        agent.fetched.append(begin)
        cut = len(data) // 3 if agent.cut.pop(digest, 0) else len(data)
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin:cut])
        self.close_connection = True
        return None

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815


class FakeAgent:
    """Follows the runner link's rules; can refuse, lose, lag and restart."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.changed = threading.Condition()
        self.grant = True
        self.max_output_bytes = 0
        #: answer this many requests of a kind with 503, or by closing the connection
        self.refuse: dict[str, int] = {}
        self.lose: dict[str, int] = {}
        #: accepted records are committed only when the test says so
        self.lag = False
        self.fence = False
        self.lines: list[bytes] = []
        self.durable = 1
        self.generation = 1
        self.action = "run"
        self.interrupts = 0
        self.grace = 10.0
        self.claims: list[dict[str, Any]] = []
        self.posts = 0
        self.end: dict[str, Any] | None = None
        self.server: _Server | None = None
        self.objects: dict[str, bytes] = {}
        #: where each download began (bytes)
        self.fetched: list[int] = []
        #: objects whose next download breaks off
        self.cut: dict[str, int] = {}
        #: what uploads are answered; 0: they are taken
        self.put_status = 0
        self.puts = 0
        self.inputs: list[dict[str, Any]] = []

    # --- what the runner asks

    def _trouble(self, kind: str) -> tuple[int, dict[str, Any]] | str | None:
        with self.changed:
            if self.refuse.get(kind, 0) > 0:
                self.refuse[kind] -= 1
                return 503, {}
            if self.lose.get(kind, 0) > 0:
                self.lose[kind] -= 1
                return "lost"
        return None

    def on_claim(self, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]] | None:
        if trouble := self._trouble("claim"):
            return None if isinstance(trouble, str) else trouble
        with self.changed:
            self.claims.append(json.loads(body))
            self.changed.notify_all()
            if not self.grant:
                return 409, {"granted": False, "refusal": "another incarnation holds it"}
            return 200, {"granted": True, "max_output_bytes": self.max_output_bytes}

    def on_records(self, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]] | None:
        first, count = int(query["first"]), int(query["count"])
        lines = body.splitlines(keepends=True)
        trouble = self._trouble("records")
        if isinstance(trouble, tuple):
            return trouble
        with self.changed:
            self.posts += 1
            assert len(lines) == count
            if self.fence:
                return 410, {}
            expected = len(self.lines) + 1
            if first > expected:
                return 409, {"expected": expected}
            self.lines.extend(lines[expected - first :])
            if not self.lag:
                self.durable = len(self.lines) + 1
            self.changed.notify_all()
            return None if trouble else (200, {"durable": self.durable})

    def on_wanted(self, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]] | None:
        generation, durable, inputs = int(query["generation"]), int(query["durable"]), int(query["inputs"])
        if trouble := self._trouble("wanted"):
            return None if isinstance(trouble, str) else trouble
        server = self.server
        with self.changed:
            if server is None:
                return None
            self.changed.wait_for(
                lambda: (
                    self.generation > generation
                    or self.durable > durable
                    or any(given["request"] > inputs for given in self.inputs)
                    or self.server is not server
                    or self.fence
                ),
                timeout=25,
            )
            if self.server is not server:
                return None
            if self.fence:
                return 410, {}
            return 200, {
                "generation": self.generation,
                "action": self.action,
                "interrupts": self.interrupts,
                "grace": self.grace,
                "durable": self.durable,
                "inputs": [given for given in self.inputs if given["request"] > inputs],
            }

    def put(self, digest: str, body: bytes) -> tuple[int, dict[str, Any]]:
        with self.changed:
            self.puts += 1
            self.changed.notify_all()
            if self.put_status:
                return self.put_status, {"code": "refused", "message": "the service said no"}
            assert hashlib.sha256(body).hexdigest() == digest
            self.objects[digest] = body
            return 200, {}

    def on_ended(self, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]] | None:
        if trouble := self._trouble("ended"):
            return None if isinstance(trouble, str) else trouble
        with self.changed:
            self.end = json.loads(body)
            self.changed.notify_all()
            return 200, {}

    # --- what tests do

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(self.path).unlink()
        server = _Server(self.path, _Handler)
        server.agent = self
        with self.changed:
            self.server = server
            self.changed.notify_all()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Go away, and forget what was not yet durable."""
        with self.changed:
            server, self.server = self.server, None
            del self.lines[self.durable - 1 :]
            self.changed.notify_all()
        if server is not None:
            server.shutdown()
            server.server_close()

    def forget_from(self, seq: int) -> None:
        """Lose what was durable, too, as a service does whose store is replaced by an older copy."""
        with self.changed:
            del self.lines[seq - 1 :]
            self.durable = seq

    def want(self, action: str = "run", *, interrupts: int = 0, grace: float = 10.0) -> None:
        with self.changed:
            self.generation += 1
            self.action, self.interrupts, self.grace = action, interrupts, grace
            self.changed.notify_all()

    def answer(self, request: int, value: str) -> None:
        with self.changed:
            self.inputs.append({"request": request, "value": value})
            self.changed.notify_all()

    def store(self, packer: Packer) -> dict[str, Any]:
        """Keep packed values; return what names them in a spec."""
        self.objects[packer.digest()] = b"".join(packer.chunks())
        return {"digest": packer.digest(), "size": packer.size}

    def values(self, folder: pathlib.Path) -> dict[str, Any]:
        """Load what the attempt kept."""
        (record,) = (r for r in self.records if r["type"] == "values")
        path = folder / "came-back"
        path.write_bytes(self.objects[record["object"]["digest"]])
        return Unpacked(path, {}).load()

    def commit(self) -> None:
        with self.changed:
            self.lag = False
            self.durable = len(self.lines) + 1
            self.changed.notify_all()

    def wait(self, check: Callable[[], Any], seconds: float = 30.0) -> None:
        with self.changed:
            assert self.changed.wait_for(check, timeout=seconds), "it did not come true in time"

    def wait_for_text(self, text: str) -> None:
        self.wait(lambda: text in self.text())

    @property
    def records(self) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in list(self.lines)]
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
        return records

    def text(self, name: str = "stdout") -> str:
        return "".join(r["text"] for r in self.records if r["type"] == "stream" and r["name"] == name)


class Attempt:
    """One supervisor under test and the agent it talks to."""

    def __init__(self, folder: pathlib.Path, agent: FakeAgent) -> None:
        self.folder = folder
        self.agent = agent
        self.process: subprocess.Popen[bytes] | None = None
        self.waiting: subprocess.Popen[bytes] | None = None

    def prepare(self, source: dict[str, Any], **changes: Any) -> None:
        workdir = self.folder / "work"
        workdir.mkdir(exist_ok=True)
        spec = {"source": source, "env": changes.pop("env", {}), "limits": changes.pop("limits", {})}
        given = {
            "protocol": 1,
            "job": "j1",
            "attempt": 1,
            "replica": 0,
            "socket": self.agent.path,
            "token": TOKEN,
            "spec": spec,
            "gpus": [],
            "python": sys.executable,
            "workdir": str(workdir),
            **changes,
        }
        (self.folder / "spec.json").write_text(json.dumps(given))

    def stand_by(self, python: str = sys.executable) -> subprocess.Popen[bytes]:
        """Start a supervisor that knows no attempt yet; the next `start` gives it this one."""
        self.waiting = subprocess.Popen(
            [*SUPERVISE, "--standby", python, str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        return self.waiting

    def again(self) -> None:
        """Forget what was run, as if the next were another attempt."""
        for name in ("supervisor.json", "exit.json", "spool"):
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.agent.lines.clear()
        self.agent.durable = 1

    def start(self, source: dict[str, Any], **changes: Any) -> Attempt:
        self.prepare(source, **changes)
        if self.waiting is not None:
            self.process, self.waiting = self.waiting, None
            assert self.process.stdin is not None
            with self.process.stdin as line:
                line.write(f"{self.folder}\n".encode())
            return self
        with (self.folder / "supervisor.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*SUPERVISE, str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def cell(self, code: str, **changes: Any) -> Attempt:
        names = ("values", "out", "encoding", "frontend")
        more = {name: changes.pop(name) for name in names if name in changes}
        return self.start({"type": "cell", "code": code, "execution_count": 7, **more}, **changes)

    def function(self, function: Any, *args: Any, **changes: Any) -> Attempt:
        """Call *function* as a job; it is packed as if it came from a notebook."""
        notebook = {"__name__": "__main__"}
        packed, arguments = Packer(notebook, limit=2**30), Packer(notebook, limit=2**30)
        packed.add("function", function, "call")
        arguments.add("0", ((), {}), "call")
        arguments.add("1", (args, changes.pop("kwargs", {})), "call")
        refs = {"function": self.agent.store(packed), "arguments": self.agent.store(arguments)}
        return self.start({"type": "function", "qualname": function.__name__, "index": 1, **refs}, **changes)

    def command(self, *argv: str, **changes: Any) -> Attempt:
        return self.start({"type": "command", "argv": list(argv)}, **changes)

    def finish(self, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for the supervisor's end; return exit.json."""
        assert self.process is not None
        assert self.process.wait(seconds) == 0, self.log()
        assert self.log() == ""
        result: dict[str, Any] = json.loads((self.folder / "exit.json").read_text())
        return result

    def log(self) -> str:
        return (self.folder / "supervisor.log").read_text()

    def supervisor(self) -> dict[str, Any]:
        path = self.folder / "supervisor.json"
        wait_until(path.exists)
        result: dict[str, Any] = json.loads(path.read_text())
        return result

    def types(self) -> list[str]:
        """List the records' types; how often the text of one stream was cut is no matter."""
        kinds = ((r["type"], r["name"] if r["type"] == "stream" else r["seq"]) for r in self.agent.records)
        return [kind for (kind, _), _ in itertools.groupby(kinds)]

    def close(self) -> None:
        for process in (self.process, self.waiting):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        self.agent.stop()


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempt]:
    # A socket's path is short; pytest's own directories are not.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jgp-"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    agent = FakeAgent(str(folder / "socket"))
    agent.start()
    attempt = Attempt(folder, agent)
    yield attempt
    attempt.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def agent(attempt: Attempt) -> FakeAgent:
    return attempt.agent


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Any]:
    return wait_until
