"""Watching a job as if it ran here: its output, its questions, its exit code, its Ctrl-C."""

from __future__ import annotations

import queue
import sys
import threading
from typing import TYPE_CHECKING, Literal

from .. import errors
from ..client.describing import printable
from ..client.protocol import Record
from ..client.terminal import Json, Terminal
from ..model.jobs import Job, Phase
from .keyboard import Keyboard

if TYPE_CHECKING:
    from ..client.sync import Client

#: seconds of waiting that need no explanation
PATIENCE = 2.0
#: seconds after which an answer is sent again: it may have been lost on its way
ANSWER_AGAIN = 3.0
INTERRUPTED = 130

CODES = "the job's own; 128 + N after signal N; 130 cancelled, or left by Ctrl-C; 1 another error; 2 a wrong line"

Choice = Literal["cancel", "detach", "go on"]


def view_of(job: Job, *, as_json: bool) -> Json | Terminal:
    return Json() if as_json else Terminal(job=job.id)


class Attended:
    """A job that somebody watches.

    :param after: the cursor behind what is not to be shown.
    :param unasked: what Ctrl-C means where nobody can be asked.
    """

    def __init__(
        self, client: Client, job: Job, view: Json | Terminal, *, after: str = "", unasked: Choice = "cancel"
    ) -> None:
        self._client = client
        self._job = job
        self._view = view
        self._cursor = after
        self._unasked = unasked
        self._cancelled = False
        #: there is output, or nothing to wait for any more
        self._speaks = threading.Event()
        self._keyboard = Keyboard()
        #: the job's question that waits for an answer, and what tells that it has got one
        self._question: Record | None = None
        self._answered = threading.Event()

    def run(self) -> int:
        """Show the job until its end, and return the exit code that stands for that."""
        threading.Thread(target=self._explain_waiting, name="gpu-run-waiting", daemon=True).start()
        try:
            return self._follow()
        finally:
            self._keyboard.drop()

    def _follow(self) -> int:
        pressed = False
        while True:
            try:
                if pressed:
                    self._speaks.set()
                    pressed = False
                    if not self._goes_on():
                        return INTERRUPTED
                for record in self._client.follow(self._job.id, self._cursor):
                    self._speaks.set()
                    self._take(record)
                return self._finish()
            except KeyboardInterrupt:
                pressed = True

    def _take(self, record: Record) -> None:
        self._cursor = record["cursor"]
        asked = record["type"] == "input" and self._keyboard.there
        if not asked or isinstance(self._view, Json):
            self._view.show(record)
        match record["type"]:
            case "input":
                self._note_question(record)
            case "input_reply" | "exit":
                self._settle()

    # --- questions of the job ----------------------------------------------------------------------------------

    def _note_question(self, record: Record) -> None:
        self._settle()
        if self._is_answered(record):
            return
        if not self._keyboard.there:
            self._view.note(f"[nobody can answer here; at a terminal: jupyter gpu attach {self._job.id}]")
            return
        self._question, self._answered = record, threading.Event()
        self._ask(record)

    def _is_answered(self, record: Record) -> bool:
        """Say whether the output goes on with an answer: it is read later than it was written."""
        cursor = record["cursor"]
        while (page := self._client.output(self._job.id, cursor)).records:
            if any(_settles(later, record) for later in page.records):
                return True
            cursor = page.cursor
        return page.ended

    def _ask(self, record: Record) -> None:
        answered = self._answered

        def answer(value: str) -> None:
            threading.Thread(
                target=self._answer, args=(record, value, answered), name="gpu-answer", daemon=True
            ).start()

        self._keyboard.ask(printable(record["prompt"]), answer, hidden=record.get("password", False))

    def _answer(self, record: Record, value: str, answered: threading.Event) -> None:
        """Send the answer until the output says that it has arrived."""
        try:
            while not answered.is_set():
                self._client.answer(self._job.id, record["request"], value)
                answered.wait(ANSWER_AGAIN)
        except errors.GpuPlatformError as error:
            self._view.note(f"[the answer was not taken: {error.message}]")
            if not answered.is_set():
                self._ask(record)

    def _settle(self) -> None:
        """Wait no longer for an answer to the job's question."""
        if self._question is not None:
            self._question = None
            self._answered.set()
            self._keyboard.drop()

    # --- Ctrl-C ------------------------------------------------------------------------------------------------

    def _goes_on(self) -> bool:
        """Do what a person means who pressed Ctrl-C; False where they leave."""
        if self._cancelled:
            self._view.note(f"Left before its end: jupyter gpu show {self._job.id}")
            return False
        choice = self._choice() if self._keyboard.there else self._unasked
        if choice == "detach":
            self._view.note(f"Detached; the job goes on. Come back with: jupyter gpu attach {self._job.id}")
            return False
        if choice == "cancel":
            self._view.note("Cancelling…")
            self._client.cancel(self._job.id)
            self._cancelled = True
        elif self._question is not None:
            self._ask(self._question)
        else:
            self._view.note("Going on.")
        return True

    def _choice(self) -> Choice:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        question = "\n[c]ancel the job, [d]etach from it, or Enter to go on? (Ctrl-C cancels) "
        try:
            self._keyboard.ask(question, lines.put)
            word = lines.get().strip().lower()
        except KeyboardInterrupt:
            self._keyboard.drop()
            print(file=sys.stderr)
            return "cancel"
        return "cancel" if word.startswith("c") else "detach" if word.startswith("d") else "go on"

    # --- the beginning and the end -----------------------------------------------------------------------------

    def _finish(self) -> int:
        job = self._client.job(self._job.id)
        if isinstance(self._view, Json):
            self._view.show({"type": "job", "job": job})
        elif job.phase is not Phase.SUCCEEDED and job.reason is not None and job.reason.code != "exit_code":
            self._view.note(f"job {job.id} {job.phase}: {job.reason.message}")
        return exit_code(job)

    def _explain_waiting(self) -> None:
        """Say on stderr why the job doesn't run yet, while nothing else is to be seen."""
        if self._speaks.wait(PATIENCE):
            return
        said: str | None = ""
        try:
            position = self._client.jobs(limit=1).log_position
            said = self._say(said)
            for change in self._client.changes(position, follow=True):
                if self._speaks.is_set() or said is None:
                    return
                if change.object_id == self._job.id:
                    said = self._say(said)
        except errors.GpuPlatformError:
            return  # the one who follows the output meets the same trouble, and tells

    def _say(self, said: str | None) -> str | None:
        """Say why it waits if that is new; None once it doesn't wait any more."""
        job = self._client.job(self._job.id)
        if job.phase not in (Phase.QUEUED, Phase.STARTING):
            return None
        text = f"{job.phase}: {job.reason.message}" if job.reason else str(job.phase)
        if text != said and not self._speaks.is_set():
            self._view.note(f"[{job.id} {text}]")
        return text


def _settles(later: Record, question: Record) -> bool:
    """Say whether *later* is the answer to *question*, or the end of the attempt that asked."""
    if later.get("attempt") != question.get("attempt"):
        return True
    return bool(later["type"] == "exit" or (later["type"] == "input_reply" and later["request"] == question["request"]))


def exit_code(job: Job) -> int:
    """Return the exit code that stands for how *job* ended: the command's own where it has one, as a shell gives it."""
    if job.phase is Phase.SUCCEEDED:
        return 0
    if job.phase is Phase.CANCELLED:
        return INTERRUPTED
    number = (job.reason.details.get("signal") if job.reason else None) or 0
    if isinstance(number, int) and number > 0:
        return 128 + number
    code = job.exit_code or 1
    return code if 0 < code < 256 else 128 - code if -128 < code < 0 else 1
