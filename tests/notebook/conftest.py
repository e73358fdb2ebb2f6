"""A real kernel, and a control service of the tests' own that serves whatever output a test writes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tornado.httpserver
import tornado.iostream
import tornado.netutil
import tornado.web
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from msgspec.structs import replace

from jupyter_gpu_platform.model.jobs import Job, JobSpec, Phase, Reason, new_job_id
from jupyter_gpu_platform.model.records import decode_cursor, encode_cursor

TOKEN = "the-tests-token"
#: one with GPUs, one without
CLUSTERS = [
    {
        "name": "lab",
        "state": "connected",
        "capacity_at": 1.0,
        "capacity": {
            "gpus": [
                {"index": index, "uuid": f"GPU-{index}", "model": "NVIDIA H100 SXM", "memory": 80 * 2**30}
                for index in range(2)
            ],
            "cpus": 64,
            "memory": 512 * 2**30,
        },
    },
    {
        "name": "local",
        "state": "connected",
        "capacity_at": 1.0,
        "capacity": {"cpus": 8, "memory": 2**34, "gpu_note": "no driver"},
    },
]


class FakeJob:
    """A job whose script, written by the test, runs on the server's loop."""

    def __init__(self, control: FakeControl, spec: JobSpec) -> None:
        self.control = control
        now = time.time()
        self.job = Job(id=new_job_id(), spec=spec, owner="ada", project="default", organisation="default", created=now)
        self.records: list[dict[str, Any]] = []
        self.interrupts = 0
        self.cancels = 0
        #: (request, value) of each answer that was given
        self.answers: list[tuple[int, str]] = []
        self.changed = asyncio.Event()

    def touch(self) -> None:
        self.control.changes.append(self.job)
        self.control.news.set()
        self.control.news = asyncio.Event()
        self.changed.set()
        self.changed = asyncio.Event()

    def set(self, **changes: Any) -> None:
        self.job = replace(self.job, **changes)
        self.touch()

    def emit(self, kind: str, **fields: Any) -> None:
        self.records.append({"seq": len(self.records) + 1, "time": time.time(), "type": kind, **fields})
        self.touch()

    def run(self) -> None:
        self.set(phase=Phase.RUNNING, started=time.time(), cluster="local", attempt=1)

    def end(self, phase: Phase = Phase.SUCCEEDED, reason: Reason | None = None, exit_code: int | None = 0) -> None:
        self.emit("exit", exit_code=exit_code, signal=None, reason=reason and msgspec.to_builtins(reason))
        self.set(phase=phase, reason=reason, ended=time.time(), exit_code=exit_code)

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await self.changed.wait()


Script = Callable[[FakeJob], Awaitable[None]]


class FakeControl:
    """The HTTP API as far as the notebook uses it; `script` says what the next jobs do."""

    def __init__(self) -> None:
        self.script: Script | None = None
        self.jobs: list[FakeJob] = []
        self.outage = 0
        #: a request waits for its answer, in a pause
        self.asked = threading.Event()
        self.answering = asyncio.Event()
        self.answering.set()
        self.cursors: list[str] = []
        #: jobs as they were after each change, in order
        self.changes: list[Job] = []
        self.news = asyncio.Event()
        #: by digest
        self.objects: dict[str, bytes] = {}
        self.clusters: list[dict[str, Any]] = list(CLUSTERS)
        self.loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        routes = [
            (r"/api/v1/status", StatusHandler),
            (r"/api/v1/jobs", SubmitHandler),
            (r"/api/v1/jobs/(\w+)", JobHandler),
            (r"/api/v1/jobs/(\w+)/output", OutputHandler),
            (r"/api/v1/jobs/(\w+)/(cancel|interrupt)", ActHandler),
            (r"/api/v1/jobs/(\w+)/input", InputHandler),
            (r"/api/v1/jobs/(\w+)/attempts", AttemptsHandler),
            (r"/api/v1/changes", ChangesHandler),
            (r"/api/v1/clusters", ClustersHandler),
            (r"/api/v1/objects/(\w+)", ObjectHandler),
        ]
        app = tornado.web.Application([(path, kind, {"control": self}) for path, kind in routes])  # type: ignore[arg-type]
        app.settings["log_function"] = lambda _: None

        async def start() -> None:
            sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
            self.server = tornado.httpserver.HTTPServer(app)
            self.server.add_sockets(sockets)
            self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
            self._started.set()

        self.loop.run_until_complete(start())
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def call(self, function: Callable[[], Any]) -> None:
        self.loop.call_soon_threadsafe(function)

    def pause(self) -> None:
        """Answer nobody, and cut the streams."""
        self.asked.clear()
        self.answering.clear()
        self.outage += 1
        for job in self.jobs:
            job.touch()

    def resume(self) -> None:
        self.answering.set()

    def close(self) -> None:
        async def stop() -> None:
            self.server.stop()
            await self.server.close_all_connections()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
                task.cancel()
            self.loop.stop()

        self.call(lambda: self.loop.create_task(stop()))
        self._thread.join(10)


class Handler(tornado.web.RequestHandler):
    def initialize(self, control: FakeControl) -> None:
        self.control = control

    async def prepare(self) -> None:
        if not self.control.answering.is_set():
            self.control.asked.set()
        await self.control.answering.wait()
        if self.request.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.problem(401, "unauthenticated", "no token")

    def problem(self, status: int, code: str, detail: str, hint: str = "") -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/problem+json")
        self.finish(json.dumps({"title": detail, "status": status, "code": code, "detail": detail, "hint": hint}))

    def found(self, job_id: str) -> FakeJob | None:
        for job in self.control.jobs:
            if job.job.id == job_id:
                return job
        self.problem(404, "not_found", f"there is no job {job_id}", hint="`jupyter gpu ls` lists your jobs.")
        return None


class StatusHandler(Handler):
    def get(self) -> None:
        self.write({"version": "1", "local": True, "user": "ada", "role": "admin"})


class SubmitHandler(Handler):
    def get(self) -> None:
        phases = self.get_query_arguments("phase")
        jobs = [job.job for job in reversed(self.control.jobs) if not phases or job.job.phase in phases]
        self.write(msgspec.json.encode({"items": jobs, "next": "", "log_position": len(self.control.changes)}))

    async def post(self) -> None:
        spec = msgspec.json.decode(self.request.body, type=JobSpec)
        if missing := [ref.digest for ref in spec.objects if ref.digest not in self.control.objects]:
            self.problem(409, "object_missing", f"object {missing[0]} is not there", hint="Upload it first.")
            return
        job = FakeJob(self.control, spec)
        self.control.jobs.append(job)
        self.control.task = asyncio.create_task(self.control.script(job))
        self.set_status(201)
        self.finish(msgspec.json.encode(job.job))


class JobHandler(Handler):
    def get(self, job_id: str) -> None:
        if job := self.found(job_id):
            self.finish(msgspec.json.encode(job.job))


class InputHandler(Handler):
    def post(self, job_id: str) -> None:
        if job := self.found(job_id):
            asked = json.loads(self.request.body)
            job.answers.append((asked["request"], asked["value"]))
            job.touch()
            self.set_status(202)


class AttemptsHandler(Handler):
    def get(self, job_id: str) -> None:
        if self.found(job_id):
            self.write({"items": []})


class ChangesHandler(Handler):
    async def get(self) -> None:
        position = int(self.get_query_argument("after"))
        while True:
            while position < len(self.control.changes):
                job = self.control.changes[position]
                position += 1
                change = {"id": position, "time": time.time(), "kind": "job", "object_id": job.id, "payload": job}
                self.write(msgspec.json.encode(change) + b"\n")
            await self.flush()
            await self.control.news.wait()


class ClustersHandler(Handler):
    def get(self) -> None:
        self.write({"items": self.control.clusters})


class ObjectHandler(Handler):
    def head(self, digest: str) -> None:
        if digest not in self.control.objects:
            self.set_status(404)

    def put(self, digest: str) -> None:
        assert hashlib.sha256(self.request.body).hexdigest() == digest
        self.control.objects[digest] = self.request.body
        self.set_status(201)
        self.write({"digest": digest, "size": len(self.request.body)})

    def get(self, digest: str) -> None:
        if digest not in self.control.objects:
            self.problem(404, "not_found", f"there is no object {digest}")
            return
        self.finish(self.control.objects[digest])


class ActHandler(Handler):
    def post(self, job_id: str, action: str) -> None:
        if not (job := self.found(job_id)):
            return
        if action == "interrupt" and job.job.phase is not Phase.RUNNING:
            self.problem(409, "conflict", f"job {job_id} is {job.job.phase}: only running code can be interrupted")
            return
        if action == "interrupt":
            job.interrupts += 1
        else:
            job.cancels += 1
        job.touch()
        self.set_status(202)
        self.finish(msgspec.json.encode(job.job))


class OutputHandler(Handler):
    async def get(self, job_id: str) -> None:
        if not (job := self.found(job_id)):
            return
        follow = self.get_query_argument("follow", "0") == "1"
        after = self.get_query_argument("after", "")
        position, outage = decode_cursor(after), self.control.outage
        self.control.cursors.append(after)
        while True:
            while position < len(job.records):
                record = job.records[position]
                position += 1
                self.write(json.dumps({**record, "cursor": encode_cursor(position), "attempt": 1, "replica": 0}) + "\n")
            ended = job.job.phase.ended
            if ended or not follow:
                break
            self.write("\n")  # a sign of life
            await self.flush()
            await job.changed.wait()
            if job not in self.control.jobs:
                self.request.connection.stream.close()  # type: ignore[attr-defined]
                return
            if outage != self.control.outage:
                self.request.connection.stream.close()  # type: ignore[attr-defined]
                return
        eof = {"type": "eof", "cursor": encode_cursor(position), "phase": job.job.phase, "ended": ended}
        self.finish(json.dumps(eof) + "\n")


class Transcript:
    """What a cell put out: its iopub messages in order, and the reply."""

    def __init__(self, messages: list[dict[str, Any]], reply: dict[str, Any]) -> None:
        self.messages = messages
        self.reply = reply["content"]

    def contents(self, kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    def text(self, name: str = "stdout") -> str:
        return "".join(content["text"] for content in self.contents("stream") if content["name"] == name)

    def outputs(self) -> list[dict[str, Any]]:
        """The output messages, neighbouring text of one stream joined: how it is cut is the kernel's timing."""
        found: list[dict[str, Any]] = []
        for message in self.messages:
            kind, content = message["msg_type"], message["content"]
            if kind in ("status", "execute_input"):
                continue
            entry = {"type": kind, **content}
            if kind == "stream" and found and found[-1]["type"] == kind and found[-1]["name"] == content["name"]:
                found[-1] = {**found[-1], "text": found[-1]["text"] + content["text"]}
            else:
                found.append(entry)
        return found


class Kernel:
    """A real kernel in a process of its own."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self._client = client

    def start(self, code: str, *, stdin: bool = False) -> str:
        """:param stdin: the front end answers questions."""
        return self._client.execute(code, allow_stdin=stdin)

    def question(self) -> dict[str, Any]:
        """The next question for the person."""
        content: dict[str, Any] = self._client.get_stdin_msg(timeout=30)["content"]
        return content

    def answer(self, value: str) -> None:
        self._client.input(value)

    def complete(self, code: str) -> list[str]:
        """What Tab offers at the end of *code*."""
        matches: list[str] = self._client.complete(code, reply=True, timeout=10)["content"]["matches"]
        return matches

    def message(self, msg_id: str, timeout: float = 30) -> dict[str, Any]:
        """The next iopub message of the cell *msg_id*."""
        while True:
            message = self._client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") == msg_id:
                return message

    def finish(self, msg_id: str, timeout: float = 30) -> Transcript:
        messages = []
        while True:
            message = self.message(msg_id, timeout)
            messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while (reply := self._client.get_shell_msg(timeout=timeout))["parent_header"].get("msg_id") != msg_id:
            pass
        return Transcript(messages, reply)

    def run(self, code: str, timeout: float = 30) -> Transcript:
        return self.finish(self.start(code), timeout)

    def until_text(self, msg_id: str, text: str) -> None:
        """Wait until the cell *msg_id* has shown *text*."""
        seen = ""
        while text not in seen:
            message = self.message(msg_id)
            seen += str(message["content"].get("text", ""))

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()


def start_kernel(env: dict[str, str], cwd: Path | None = None) -> Iterator[Kernel]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=env, cwd=str(cwd) if cwd else None)
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        kernel = Kernel(manager, client)
        assert kernel.run("%load_ext jupyter_gpu_platform").reply["status"] == "ok"
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        manager.context.destroy()


@pytest.fixture(scope="session")
def _control() -> Iterator[FakeControl]:
    control = FakeControl()
    yield control
    control.close()


@pytest.fixture
def control(_control: FakeControl) -> FakeControl:
    _control.jobs.clear()
    _control.cursors.clear()
    _control.objects.clear()
    _control.clusters[:] = CLUSTERS
    _control.asked.clear()
    return _control


@pytest.fixture(scope="session")
def kernel(_control: FakeControl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    home = tmp_path_factory.mktemp("kernel")
    env = {
        **os.environ,
        "JUPYTER_GPU_URL": _control.url,
        "JUPYTER_GPU_TOKEN": TOKEN,
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }
    yield from start_kernel(env)


@pytest.fixture(scope="module")
def platform_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which the local platform is a fresh one; what runs there is stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_GPU_")}
    env |= {"JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_GPU_STATE_DIR": str(home / "state")}
    env |= {"IPYTHONDIR": str(home / "ipython")}
    try:
        yield env
    finally:
        gpu_command(env, "down")


def gpu_command(env: dict[str, str], *line: str) -> str:
    """What ``jupyter gpu`` prints."""
    argv = [sys.executable, "-m", "jupyter_gpu_platform.cli.main", *line]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture(scope="session")
def gpu() -> Callable[..., str]:
    """`gpu_command`, for modules that look at the platform themselves."""
    return gpu_command


@pytest.fixture(scope="session")
def start_kernel_in() -> Callable[..., Iterator[Kernel]]:
    """`start_kernel`, for modules that need kernels of their own."""
    return start_kernel
