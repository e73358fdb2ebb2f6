"""The process that outlives the user's code: it starts it, records what it shows, stops it, and reports its end.

One life, after `launching` has taken the attempt's directory and started the worker: ask for the claim and fetch values
→ release the user's code once the claim is granted and they are there → record until the worker has ended → kill what
is left of its tree → upload the values that it kept → write the exit record → send everything until it is durable →
report the end → exit.
"""

from __future__ import annotations

import collections
import os
import select
import shutil
import signal
import sys
import time
from typing import Any, Callable

from . import framing, processes
from .asking import Control
from .ending import end_reason, memory_kills, reason
from .launching import PIPE, Worker, write_json
from .link import Agent, Link
from .mirror import Mirror
from .recorder import FULL, Recorder
from .spool import Spool
from .transfers import Transfers

VERSION = "1"
#: seconds for which small pieces of text gather in a pipe
GATHER = 0.003
#: seconds between tries while the disk is full
FULL_PAUSE = 0.5
#: of what a worker that can't start says, this much goes into the reason (bytes)
LAST_WORDS = 2000
#: seconds between tries to write to a worker that doesn't read
DOWN_PAUSE = 0.05


class DirectoryGone(Exception):
    """Somebody deleted the attempt's directory: nothing can be kept, sent or reported any more."""


class Supervisor:
    """Supervises one attempt.

    :param given: its ``spec.json``.
    """

    def __init__(
        self, folder: str, given: dict[str, Any], incarnation: str, worker: Worker, mirror: Mirror | None = None
    ) -> None:
        self.folder = folder
        self.given = given
        self.spec = given["spec"]
        self.kind = self.spec["source"]["type"]
        self.limits = self.spec.get("limits") or {}
        self.incarnation = incarnation
        self.selector = select.poll()
        self.wake_read, self.wake_write = os.pipe()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)
        self.spool = Spool(os.path.join(folder, "spool"))
        self.recorder = Recorder(self.spool, mirror)
        path = "/v1/attempts/%s/%d/%d" % (given["job"], given["attempt"], given.get("replica", 0))
        self.link = Link(Agent(given), given["token"], path, self.incarnation, self.spool, self.wake)
        self.transfers = Transfers(self.link, os.path.join(folder, "objects"))
        #: objects that the user's code needs and that are not here yet
        self.missing = {ref["digest"]: ref["size"] for ref in self._objects()}
        self.results = os.path.join(folder, "results")
        #: what the worker said of the values that it packed
        self.kept: dict[str, Any] | None = None
        self.interrupts_before = 0
        self.memory_kills = memory_kills()
        #: what became of their upload: (object, why not)
        self.uploaded: tuple[Any, Any] | None = None
        self.frames = framing.Reader()
        #: bytes
        self.last_read = 0
        #: the worker's pipes that are still open: fd → what is done with its bytes
        self.sources: dict[int, Callable[[bytes], None]] = {}
        self._listen(worker.frames, self._take_frames)
        self._listen(worker.out, lambda data: self._take_text("stdout", data))
        self._listen(worker.err, lambda data: self._take_text("stderr", data))
        self.control = Control(worker.control)
        self.popen = worker.popen
        self.worker = 0 if worker.popen is None else worker.popen.pid
        self.status: int | None = None
        self.ready = False
        self.started = False
        self.claimed = False
        self.released = False
        #: why the user's code could not begin: (code, message)
        self.failure = worker.failure
        self.raised: tuple[str, str] | None = None
        #: why the user's code is being ended by us
        self.stopping: dict[str, Any] | None = None
        self.kill_at: float | None = None
        self.killing = False
        self.max_run_at: float | None = None
        self.interrupts = 0
        self.interrupts_sent = 0
        self.terminated = False
        #: nobody wants anything of this attempt any more
        self.dismissed = False
        self.refused: str | None = None
        self.reported = False
        self.early: collections.deque[bytes] = collections.deque(maxlen=64)

    def wake(self) -> None:
        try:
            os.write(self.wake_write, b"w")
        except BlockingIOError:
            pass  # it is awake already

    def _objects(self) -> list[dict[str, Any]]:
        source = self.spec["source"]
        wanted = {"cell": ("values",), "function": ("function", "arguments")}.get(self.kind, ())
        return [source[field] for field in wanted if source.get(field)]

    # --- starting

    def run(self) -> None:
        processes.prctl(processes.PR_SET_CHILD_SUBREAPER, 1)
        self._handle_signals()
        self.link.start(VERSION)
        for digest, size in self.missing.items():
            self.transfers.fetch(digest, size)
        try:
            self.spool.reserve()
        except OSError:
            pass  # without it a full disk is said only afterwards
        while self.worker and self.status is None:
            self._step()
        self._end()
        self.link.close()

    def _handle_signals(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.selector.register(self.wake_read, select.POLLIN)

    def _on_sigterm(self, *_: Any) -> None:
        self.terminated = True

    def _listen(self, fd: int, consume: Callable[[bytes], None]) -> None:
        os.set_blocking(fd, False)
        self.sources[fd] = consume
        self.selector.register(fd, select.POLLIN)

    def _fake_gpus(self) -> int:
        return sum(1 for gpu in self.given.get("gpus") or () if gpu.get("fake"))

    # --- the loop

    def _step(self) -> None:
        if not self.recorder.retry():
            select.select([self.wake_read], [], [], FULL_PAUSE)
        else:
            self._let_gather()
            for fd, _ in self.selector.poll(self._timeout()):
                if fd in self.sources and not self.recorder.blocked:
                    self._read(fd)
        self._drain_wake()
        self._events()
        self.control.flush()
        self._timers()
        self._reap()

    def _let_gather(self) -> None:
        """Let small pieces of text that isn't due yet gather: each read of them wakes both sides of the pipe.

        What other processes write ends that: it has its place among the cell's own text by when it is read.
        """
        due = self.recorder.deadline()
        if due is not None and self.last_read < PIPE // 32 and due - time.monotonic() > GATHER:
            others = [fd for fd, consume in self.sources.items() if consume != self._take_frames]
            select.select([self.wake_read, *others], [], [], GATHER)

    def _timeout(self) -> int | None:
        times = [t for t in (self.recorder.deadline(), self.kill_at, self.max_run_at) if t is not None]
        if self.control.pending:
            times.append(time.monotonic() + DOWN_PAUSE)
        if not times:
            return None
        return max(0, int((min(times) - time.monotonic()) * 1000) + 1)

    def _drain_wake(self) -> None:
        try:
            while os.read(self.wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def _timers(self) -> None:
        now = time.monotonic()
        if not self.recorder.blocked:
            self.recorder.tick()
        if self.terminated and self.stopping is None:
            said = "the supervisor was asked to stop (SIGTERM), as happens when the machine shuts down"
            self._stop(reason("stopped", said), self.limits.get("grace_seconds", 10.0))
        if self.max_run_at is not None and now >= self.max_run_at:
            self.max_run_at = None
            limit = self.limits["max_run_seconds"]
            why = reason("max_run_time", "ran longer than its limit of %g s" % limit, limit=limit)
            self._stop(why, self.limits.get("grace_seconds", 10.0))
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = now + 1.0  # what was born meanwhile
            self.killing = True
            self._signal_tree(signal.SIGKILL)

    def _reap(self) -> bool:
        """Collect the dead: the worker, and orphans, whose parent we are as subreaper; returns whether any are left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if self.popen is not None and pid == self.worker:
                self.status = status
                self.popen.returncode = status  # it must not wait for a pid that may be another's by then

    # --- output

    def _read(self, fd: int) -> bool:
        """Read once; returns whether there was something."""
        if fd not in self.sources:
            return False  # a message read meanwhile had it read to its end
        try:
            data = os.read(fd, PIPE)
        except BlockingIOError:
            return False
        if data:
            self.last_read = len(data)
            self.sources[fd](data)
            return True
        self.selector.unregister(fd)
        del self.sources[fd]
        os.close(fd)
        return False

    def _read_all(self) -> bool:
        """Read once from each pipe; returns whether there was something."""
        return sum([self._read(fd) for fd in list(self.sources)]) > 0

    def _take_text(self, name: str, data: bytes) -> None:
        if self.ready:
            self.recorder.text(name, (name, "fd"), data)
        else:
            self.early.append(data[-LAST_WORDS:])  # noise of imports, or why the worker can't start

    def _take_frames(self, data: bytes) -> None:
        text = self.recorder.text
        for kind, payload in self.frames.feed(data):
            if kind == framing.OUT_TEXT:
                text("stdout", ("stdout", "text"), payload)
            elif kind == framing.ERR_TEXT:
                text("stderr", ("stderr", "text"), payload)
            elif kind == framing.OUT_BYTES:
                text("stdout", ("stdout", "bytes"), payload)
            elif kind == framing.ERR_BYTES:
                text("stderr", ("stderr", "bytes"), payload)
            else:
                self._take_message(payload)

    def _take_message(self, message: Any) -> None:
        kind = message.get("type")
        # What a child process wrote before this message belongs before it.
        for fd, consume in list(self.sources.items()):
            if consume != self._take_frames:
                self._read(fd)
        if kind == "ready":
            self.ready = True
            self.early.clear()
            self._release()
        elif kind == "started":
            self.started = True
            self._interrupt()
        elif kind == "start_failed":
            self.failure = (str(message.get("code")), str(message.get("message")))
        elif kind == "done":
            if message.get("status") == "error":
                self.raised = (str(message.get("ename")), str(message.get("evalue")))
        elif kind == "values":
            self.kept = message
            self.interrupts_before = self.interrupts
            if message["entries"]:
                self.transfers.upload(self.results)
        else:
            self.recorder.message(message)
            if kind in ("input", "input_reply"):
                self.control.ask(int(message["request"]) if kind == "input" else 0)

    # --- what the agent says

    def _events(self) -> None:
        while self.link.events:
            kind, data = self.link.events.popleft()
            if kind == "claimed":
                self.claimed = True
                self.recorder.limit(int(data.get("max_output_bytes") or 0))
                self.link.send_records()
                self._release()
            elif kind == "refused":
                self.refused = str(data.get("refusal") or "the claim was refused")
                self._dismiss()
            elif kind == "wanted":
                self._wanted(data)
            elif kind == "inputs":
                self.control.answer(data)
            elif kind == "object":
                self.missing.pop(data)
                self._release()
            elif kind == "object_failed":
                self.failure = (data["code"], data["message"])
                self.kill_at = time.monotonic()
            elif kind == "uploaded":
                self.uploaded = (data, None)
            elif kind == "upload_failed":
                self.uploaded = (None, data)
            elif kind == "away" and not os.path.exists(os.path.join(self.folder, "supervisor.json")):
                raise DirectoryGone
            elif kind == "fenced":
                self._dismiss()
            elif kind == "reported":
                self.reported = True

    def _wanted(self, data: dict[str, Any]) -> None:
        self.interrupts = int(data.get("interrupts") or 0)
        if data["action"] == "forget":
            self._dismiss()
        elif data["action"] == "stop":
            self._stop(reason("stopped", "stopped because its job was cancelled"), float(data.get("grace") or 0))
        else:
            self._interrupt()

    def _release(self) -> None:
        """Let the user's code begin, once it may and can: after ``ready``, since what came before that is dropped."""
        if not (self.claimed and self.ready) or self.missing or self.stopping is not None or self.released:
            return
        self.released = True
        count = self._fake_gpus()
        if count:
            said = "This platform simulates its GPUs: the %s given to this job %s not real.\n"
            which = ("GPU", "is") if count == 1 else ("%d GPUs" % count, "are")
            self.recorder.notice("stderr", said % which)
        if self.limits.get("max_run_seconds"):
            self.max_run_at = time.monotonic() + self.limits["max_run_seconds"]
        source = self.spec["source"]
        message = {"source": source, "results": self.results}
        message["objects"] = {ref["digest"]: self.transfers.path(ref["digest"]) for ref in self._objects()}
        if self.kind == "script":
            message["argv"] = [self.given["python"], source["path"], *(source.get("args") or ())]
        elif self.kind == "command":
            message["argv"] = list(source["argv"])
        self.control.send(message)

    def _interrupt(self) -> None:
        """Pass on interrupts that came; those from before the code began are kept until it has."""
        if not self.started or self.status is not None:
            return
        if self.interrupts > self.interrupts_sent:
            self.interrupts_sent = self.interrupts
            try:
                os.killpg(self.worker, signal.SIGINT)
            except (ProcessLookupError, PermissionError):
                pass

    def _stop(self, why: dict[str, Any], grace: float) -> None:
        """End the user's code: politely, then after *grace* seconds for good. A later call may shorten the grace."""
        until = time.monotonic() + grace
        if self.stopping is not None:
            self.kill_at = until if self.kill_at is None else min(self.kill_at, until)
            return
        self.stopping = why
        if self.started and grace > 0:
            self._signal_tree(signal.SIGTERM)
            self.kill_at = until
        else:
            self.kill_at = time.monotonic()

    def _dismiss(self) -> None:
        self.dismissed = True
        if self.stopping is None:
            self.stopping = reason("stopped", "no longer wanted")
        self.kill_at = time.monotonic()

    def _signal_tree(self, number: int) -> None:
        for pid in self._tree():
            processes.send(pid, number)

    def _tree(self) -> list[int]:
        return [pid for pid in processes.descendants(os.getpid()) if pid != os.getpid()]

    # --- the end

    def _end(self) -> None:
        self._kill_rest()
        self.control.close()
        self.max_run_at = None
        self._upload()
        self._remove_values()
        exit_code, number, why = self._outcome()
        self._finish_records(exit_code, number, why)
        self.spool.release()
        self._keep_end({"exit_code": exit_code, "signal": number, "reason": why, "last_seq": self._last_seq()})
        if self.claimed:
            self._wait(lambda: self.link.durable > self.recorder.last_seq)
        if not self.dismissed or self.refused is not None:
            self.dismissed = False
            self.link.report(exit_code, why, self._last_seq())
            self._wait(lambda: self.reported)

    def _keep_end(self, end: dict[str, Any]) -> None:
        """Write how it ended where an agent finds it; on a full disk, once there is room."""
        while True:
            try:
                write_json(os.path.join(self.folder, "exit.json"), end)
                return
            except OSError as error:
                if error.errno not in FULL:
                    raise
            select.select([self.wake_read], [], [], FULL_PAUSE)
            self._drain_wake()
            self._events()
            if self.dismissed:
                return  # nobody wants to know any more

    def _upload(self) -> None:
        """Send what the worker kept, unless it is stopped or interrupted, and record what became of it."""
        kept = self.kept
        if kept is None:
            return
        if kept["entries"]:
            while self.uploaded is None and not self._enough():
                self._step()
            self.transfers.give_up()
        if self.dismissed:
            return
        interrupted = {"code": "not_kept", "message": "stopped before it was kept"}
        ref, failure = self.uploaded or (None, interrupted)
        if ref is None:
            failed = [dict(failure, name=entry["name"], kind=entry["kind"]) for entry in kept["entries"]]
            kept = dict(kept, entries=[], failed=kept["failed"] + failed)
        self.recorder.message(dict(kept, object=ref))

    def _enough(self) -> bool:
        """Say whether the upload isn't to be waited for any longer."""
        return self.dismissed or self.killing or self.interrupts > self.interrupts_before

    def _remove_values(self) -> None:
        shutil.rmtree(os.path.join(self.folder, "objects"), ignore_errors=True)
        if os.path.exists(self.results):
            os.unlink(self.results)

    def _last_seq(self) -> int:
        return self.recorder.last_seq if self.claimed else 0

    def _kill_rest(self) -> None:
        """Leave no process behind, then read what they had still written."""

        def pause(seconds: float) -> None:
            self._reap()
            for fd in list(self.sources):
                self._read(fd)
            time.sleep(seconds)

        # Without a child there is no descendant either: an orphan would be our child.
        left = processes.kill_all(self._tree, pause=pause) if self._reap() else []
        self._reap()
        while self.sources and not self.recorder.blocked and self._read_all():
            pass
        while self.sources and self.recorder.blocked and not self.dismissed:
            self._step()
        for fd in list(self.sources):
            self.selector.unregister(fd)
            os.close(fd)
        self.sources.clear()
        if left:
            self.recorder.gap("processes_left", "these processes can't be killed: %s" % ", ".join(map(str, left)))

    def _outcome(self) -> tuple[int | None, int | None, dict[str, Any] | None]:
        if self.refused is not None:
            return None, None, reason("claim_refused", self.refused)
        if self.status is None or self.failure is not None or (not self.ready and self.stopping is None):
            words = b"".join(self.early).decode("utf-8", "replace")[-LAST_WORDS:].strip()
            said = "the worker ended before it could run anything: %s" % (words or "it said nothing")
            return None, None, reason(*(self.failure or ("start_failed", said)))
        exit_code, number, why = end_reason(self.status, self.raised, memory_kills() > self.memory_kills)
        if self.stopping is not None:
            return (exit_code if self.started else None), number, self.stopping
        return exit_code, number, why

    def _finish_records(self, exit_code: int | None, number: int | None, why: dict[str, Any] | None) -> None:
        while not self.recorder.retry() and not self.dismissed:
            self._step()
        self.recorder.exit(exit_code, number, why)
        while not self.recorder.retry() and not self.dismissed:
            self._step()

    def abandon(self) -> None:
        """Leave no process behind, and nothing else."""
        self.link.close()

        def pause(seconds: float) -> None:
            self._reap()
            time.sleep(seconds)

        processes.kill_all(self._tree, pause=pause)

    def _wait(self, condition: Callable[[], bool]) -> None:
        """Wait for the agent, as long as it takes, unless it wants nothing more of us."""
        while not condition() and not self.dismissed:
            self.selector.poll(None)
            self._drain_wake()
            self._events()


def supervise(
    folder: str,
    given: dict[str, Any],
    incarnation: str,
    worker: Worker,
    told: Any = None,
    mirror: Mirror | None = None,
) -> int:
    """See an attempt through whose directory is ours and whose worker has started; returns the exit status.

    :param told: what a worker from standby has to be told of it; see `becoming`.
    :param mirror: where its text is shown as well.
    """
    supervisor = Supervisor(folder, given, incarnation, worker, mirror)
    if told is not None:
        supervisor.control.send(told)
    try:
        supervisor.run()
    except (DirectoryGone, FileNotFoundError):
        if os.path.exists(os.path.join(folder, "supervisor.json")):
            raise
        supervisor.abandon()
        sys.stderr.write("%s was deleted, and with it the output of its job, which is ended\n" % folder)
        return 4
    return 0
