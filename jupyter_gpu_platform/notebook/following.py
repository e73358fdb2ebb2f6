"""Waiting for a job under a cell: a thread reads, the cell's own thread shows.

Magic functions are synchronous and messages belong to the cell whose thread publishes them, so the network is read
in a thread of its own (`Feed`) and everything is shown from the thread that runs the cell (`watch`). The queue
between them is a `SimpleQueue`, since a signal handler puts into it too: its ``put`` is reentrant.
"""

from __future__ import annotations

import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import errors
from ..model.jobs import Job, Phase
from . import failures
from .asking import NobodyThere, Question, Withdrawn
from .interrupting import OnInterrupt, catching, next_step
from .replay import Replay
from .waiting import Card

if TYPE_CHECKING:
    from ..client import Client

_log = logging.getLogger(__name__)

#: So much may wait to be shown (bytes, and a little for each record): a fast job must not fill the kernel's memory.
_WINDOW = 16 * 2**20
_EACH = 2**10
#: Seconds without output after which the job is looked at.
_QUIET = 2.0
#: Seconds between two looks: at first, and at the most; each is a little later than the one before.
_LOOK, _LONGEST_LOOK = 1.0, 5.0
#: Seconds for which a question that is found in the log of a job begun elsewhere may turn out to be answered already.
_ANSWERED_ALREADY = 0.3
#: Seconds until an answer that was not taken is given again.
_AGAIN = 1.0
#: Seconds the service may take to answer before the cell says so.
_PATIENCE_WITH_SERVICE = 3.0


_DELETED = "Somebody deleted it with its output; run the cell again. `%gpu jobs` lists the others."


class Submitted(NamedTuple):
    job: Job


class Record(NamedTuple):
    record: dict[str, Any]


class Looked(NamedTuple):
    job: Job


class Said(NamedTuple):
    """A sentence for the person, shown on stderr."""

    text: str


class Pressed(NamedTuple):
    """Ctrl-C, or the stop button."""


class Ended(NamedTuple):
    job: Job


class Broken(NamedTuple):
    error: Exception


Event = Submitted | Record | Looked | Said | Pressed | Ended | Broken


class _Room:
    """Room for what waits to be shown; the reader waits for it. What is larger than all of it is let in alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._over = False

    def take(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over or not self._taken or self._taken + size <= _WINDOW)
            self._taken += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    def over(self) -> None:
        """Let the reader wait no more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


def _size(record: dict[str, Any]) -> int:
    """About how much memory a record takes, bytes."""
    data = record.get("data")
    shown = data.values() if isinstance(data, dict) else ()
    return _EACH + len(record.get("text") or "") + sum(len(part) for part in shown if isinstance(part, str))


class _Highest:
    """The highest number reached so far, to wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._over = False

    def reach(self, number: int) -> None:
        with self._changed:
            self._number = max(self._number, number)
            self._changed.notify_all()

    def over(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait(self, number: int, timeout: float) -> bool:
        """Wait until *number* was reached, or nothing more will be; False after *timeout* seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._over or self._number >= number, timeout)


class Feed:
    """Submits (or finds) a job and reads its output, in a thread; gives what happens as events.

    :param connect: gives the client, and starts the local platform where that is what it takes.
    :param begin: submits the job, or looks it up.
    :param output: read its output too; else it only begins.
    """

    def __init__(self, connect: Callable[[], Client], begin: Callable[[Client], Job], *, output: bool = True) -> None:
        self._connect, self._begin, self._output = connect, begin, output
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._room = _Room()
        self._stopped = threading.Event()
        self._looking: threading.Event | None = None
        #: a look, and since when it waits for its answer
        self._asked: tuple[threading.Event | None, float | None] = (None, None)
        self._client: Client | None = None
        self.job: Job | None = None
        #: what is done until there is one
        self.doing = "Looking for the GPU service; this machine's own is started where it is meant and doesn't run"
        #: the record of the values that the job left, once it was shown
        self.values: dict[str, Any] | None = None
        self._replied = _Highest()
        #: what the cell's thread asks the person just now, taken back by the reader when it is settled elsewhere
        self.question: Question | None = None
        #: the person gave up before the job had an id: it is cancelled as soon as it has one
        self.unwanted = False

    def start(self) -> None:
        threading.Thread(target=self._read, name="gpu-run-output", daemon=True).start()

    def stop(self) -> None:
        """Read no further; the job is not touched."""
        self._stopped.set()
        self._room.over()

    def press(self) -> None:
        """Note a press of Ctrl-C; called by the signal handler."""
        self._events.put(Pressed())

    def next(self, timeout: float | None) -> Event | None:
        """Return the next event, or None when none came within *timeout* seconds (None: for ever)."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(event, Record):
            self._room.give_back(_size(event.record))
        return event

    @property
    def idle(self) -> bool:
        return self._events.empty()

    def look(self) -> None:
        """Begin to look at the job's phase now and then."""
        if self._looking is None:
            self._looking = threading.Event()
            threading.Thread(target=self._look, args=(self._looking,), name="gpu-run-phase", daemon=True).start()

    def stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.set()
            self._looking = None

    @property
    def looking(self) -> bool:
        return self._looking is not None

    @property
    def unanswered(self) -> float:
        """For how many seconds the service has not answered the look that is under way."""
        look, asked = self._asked
        return 0.0 if asked is None or look is not self._looking else time.monotonic() - asked

    def ask(self, what: str) -> None:
        """Ask for an ``interrupt`` or a ``cancel`` without keeping the cell's thread."""
        threading.Thread(target=self._ask, args=(what,), name=f"gpu-run-{what}", daemon=True).start()

    def _read(self) -> None:
        try:
            client = self._client = self._connect()
            self.doing = "Handing over to the GPU service"
            self.job = self._begin(client)
            self._events.put(Submitted(self.job))
            if self.unwanted:
                client.cancel(self.job.id)
            if not self._output:
                return
            self._events.put(self._read_output(client, self.job))
        except Exception as error:  # noqa: BLE001 - the thread's edge: the cell's thread raises it
            self._events.put(Broken(error))
        finally:
            self._replied.over()
            self._withdraw()

    def _read_output(self, client: Client, job: Job) -> Event:
        """Read to the end, and say how it ended."""
        try:
            for record in client.follow(job.id, stopped=self._stopped.is_set):
                if record["type"] == "input_reply":
                    self._replied.reach(record["request"])
                    self._withdraw()
                elif record["type"] == "exit":
                    self._withdraw()
                self._room.take(_size(record))
                if self._stopped.is_set():
                    break
                self._events.put(Record(record))
            return Ended(job if self._stopped.is_set() else client.job(job.id))
        except errors.NotFound:
            return Broken(errors.NotFound(f"job {job.id} was deleted while its output was shown", hint=_DELETED))

    def _withdraw(self) -> None:
        if (question := self.question) is not None:
            question.withdraw()

    def answered(self, request: int) -> bool:
        """Say whether the question is settled: answered, or of a job whose output is over."""
        return self._replied.wait(request, 0)

    def answer(self, request: int, value: str) -> None:
        """Answer a question of the job's code, until it has been taken; the cell's thread goes on at once."""
        threading.Thread(target=self._answer, args=(request, value), name="gpu-run-answer", daemon=True).start()

    def _answer(self, request: int, value: str) -> None:
        client, job = self._client, self.job
        assert client is not None
        assert job is not None  # the question was a record of it
        while not self._stopped.is_set():
            try:
                client.answer(job.id, request, value)
            except (errors.Conflict, errors.NotFound):
                return  # nothing runs there any more
            except errors.GpuPlatformError as error:
                _log.debug("answering job %s: %s", job.id, error)
            if self._replied.wait(request, _AGAIN):
                return

    def _look(self, enough: threading.Event) -> None:
        pause = _LOOK
        while not (enough.is_set() or self._stopped.is_set()):
            if self._client is not None and self.job is not None:
                self._asked = (enough, self._asked[1] or time.monotonic())
                try:
                    self._events.put(Looked(self._client.job(self.job.id)))
                    self._asked = (enough, None)
                except errors.GpuPlatformError as error:
                    # The stream's reader says so when it gives up; until then it is only noted as unanswered.
                    _log.debug("looking at job %s: %s", self.job.id, error)
            enough.wait(pause)
            pause = min(pause * 1.2, _LONGEST_LOOK)

    def _ask(self, what: str) -> None:
        # Noted before looking whether there is an id: the reader does these two the other way round.
        self.unwanted = self.unwanted or what == "cancel"
        client, job = self._client, self.job
        if client is None or job is None:
            return
        try:
            if what == "interrupt":
                try:
                    client.interrupt(job.id)
                    return
                except errors.Conflict:
                    if client.job(job.id).phase.ended:
                        return
                    self._events.put(Said(f"Job {job.id} runs no code yet: cancelling it."))
            client.cancel(job.id)
        except errors.Conflict:
            return  # it has ended meanwhile
        except errors.GpuPlatformError as error:
            self._events.put(Said(f"Job {job.id} could not be asked to {what}: {error}"))


def watch(
    shell: Any,
    feed: Feed,
    *,
    on_interrupt: OnInterrupt = "cancel",
    ours: bool = False,
    missed: Callable[[str], str] = lambda _name: "",
) -> Job:
    """Show a job's output under the cell until it ends, and return the job as it ended.

    :param ours: this cell has just submitted it.
    :param missed: says what to do about a name that the code didn't find, or nothing.
    :raises FarError: its code raised; a child class with the far class's name.
    :raises JobFailed: it ended badly in another way.
    :raises KeyboardInterrupt: the wait was interrupted.
    :raises GpuPlatformError: the platform could not be reached, or refused.
    """
    return _Watch(shell, feed, on_interrupt, ours=ours, missed=missed).run()


def submitted(feed: Feed) -> Job:
    """Begin the feed's job and return it without waiting for more.

    :raises KeyboardInterrupt: it was interrupted first; the job is cancelled as soon as it has an id.
    :raises GpuPlatformError: the platform could not be reached, or refused.
    """
    with catching(feed.press):
        feed.start()
        while True:
            match feed.next(None):
                case Submitted(job):
                    return job
                case Broken(error):
                    raise _shown_well(error) from None
                case Pressed():
                    feed.ask("cancel")
                    raise failures.interrupted("the job is not wanted any more, and is cancelled if it was submitted")
                case _:
                    pass


def _shown_well(error: Exception) -> Exception:
    return failures.readable(error) if isinstance(error, errors.GpuPlatformError) else error


class _Watch:
    def __init__(
        self, shell: Any, feed: Feed, on_interrupt: OnInterrupt, *, ours: bool, missed: Callable[[str], str]
    ) -> None:
        self._shell = shell
        self._feed = feed
        self._on_interrupt = on_interrupt
        self._ours = ours
        self._missed = missed
        self._replay = Replay(shell)
        self._card = Card(shell)
        self._presses = 0
        self._heard = time.monotonic()
        self._said_away = False
        #: what the code asks and nobody has answered yet, and when to ask the person
        self._open: tuple[dict[str, Any], float] | None = None

    def run(self) -> Job:
        with catching(self._feed.press):
            self._feed.start()
            try:
                ended = self._show_until_the_end()
            finally:
                self._feed.stop()
                self._replay.flush()
        return self._conclude(ended)

    def _show_until_the_end(self) -> Job:
        while True:
            if self._feed.idle:
                self._replay.flush()
            event = self._feed.next(self._patience())
            match event:
                case Record(record):
                    self._show(record)
                case Looked(job):
                    self._card.update(job)
                case Pressed():
                    self._press()
                case Said(text):
                    _say(text)
                case Ended(job):
                    self._card.end(job)
                    return job
                case Broken(error):
                    self._replay.release()
                    self._card.settle()
                    raise _shown_well(error) from None
                case _:
                    pass
            self._on_time()

    def _patience(self) -> float:
        """How long the next event may take before there is something to do without one, seconds."""
        quiet = _LOOK if self._feed.looking else max(0.0, self._heard + _QUIET - time.monotonic())
        hold = self._replay.hold_left
        asking = max(0.0, self._open[1] - time.monotonic()) if self._open else None
        return min(wait for wait in (quiet, hold, asking) if wait is not None)

    def _on_time(self) -> None:
        if self._replay.hold_left == 0:
            self._replay.release()
        if self._open and time.monotonic() >= self._open[1]:
            self._ask_person()
        if time.monotonic() >= self._heard + _QUIET:
            if self._feed.job is None:
                self._card.prepare(self._feed.doing)
            self._feed.look()
        if self._feed.unanswered < _PATIENCE_WITH_SERVICE:
            self._said_away = False
        elif not self._said_away:
            self._said_away = True
            _say("The GPU service doesn't answer; the job goes on, and its output comes when the service is back.")

    def _show(self, record: dict[str, Any]) -> None:
        self._heard = time.monotonic()
        self._feed.stop_looking()
        match record["type"]:
            case "exit":
                self._open = None
            case "values":
                self._feed.values = record
            case "input":
                # The log of a job that was begun elsewhere holds questions that were answered long ago.
                self._open = (record, time.monotonic() + (0.0 if self._ours else _ANSWERED_ALREADY))
            case "input_reply":
                self._open = None
            case _:
                self._card.settle(self._feed.job)
                self._replay.record(record)

    def _ask_person(self) -> None:
        assert self._open is not None
        record, self._open = self._open[0], None
        self._replay.release()
        self._replay.flush()
        self._card.settle(self._feed.job)
        question = self._feed.question = Question(self._shell)
        try:
            if not self._feed.answered(record["request"]):
                answer = question.ask(record["prompt"], password=record["password"])
                self._feed.answer(record["request"], answer)
        except KeyboardInterrupt:
            self._press()
        except Withdrawn:
            pass
        except NobodyThere:
            _say(f"The job waits for an answer to {record['prompt']!r}, and nobody can be asked here: {_ELSEWHERE}")
        finally:
            self._feed.question = None
            self._heard = time.monotonic()

    def _press(self) -> None:
        self._presses += 1
        job = self._feed.job
        name = f"job {job.id}" if job else "the job"
        match next_step(self._presses, on_interrupt=self._on_interrupt, running=job is not None):
            case "interrupt":
                _say(f"Interrupting {name}; press again to cancel it.")
                self._feed.ask("interrupt")
            case "cancel":
                _say(f"Cancelling {name}; press again to stop waiting for it.")
                self._feed.ask("cancel")
            case "detach":
                come_back = f" Come back with: %gpu attach {job.id}" if job else ""
                raise failures.interrupted(f"{name} goes on.{come_back}")
            case "leave":
                raise failures.interrupted(f"no longer waiting for {name}; it was asked to stop")

    def _conclude(self, job: Job) -> Job:
        """Return the ended job, or raise what it ended with."""
        far = self._replay.error
        if self._presses:
            if far is not None and far.get("ename") == "KeyboardInterrupt":
                raise self._replay.exception() or KeyboardInterrupt
            self._replay.release()
            raise failures.interrupted(f"job {job.id} {_AFTER_INTERRUPT.get(job.phase, job.phase.value)}")
        if job.phase is Phase.SUCCEEDED:
            self._replay.release()
            return job
        if job.reason is None or job.reason.code == "error":
            error = self._replay.exception(job.reason)
            if error is not None:
                raise failures.noted(error, job, self._missed(_name_not_found(far or {})))
        self._replay.release()
        raise failures.from_job(job)


def _name_not_found(far: dict[str, Any]) -> str:
    """Return the name that a NameError is about; empty where it is another error."""
    found = re.match(r"name '(\w+)' is not defined", str(far.get("evalue", "")))
    return found[1] if found and far.get("ename") == "NameError" else ""


_ELSEWHERE = "answer it where there is a keyboard, or cancel it."
_AFTER_INTERRUPT = {
    Phase.CANCELLED: "was cancelled",
    Phase.FAILED: "was interrupted",
    Phase.SUCCEEDED: "was interrupted, caught that, and ended well",
}


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
