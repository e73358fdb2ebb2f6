"""``jupyter gpu run``: run a command as a job, as if it ran here: its output, its exit code, its Ctrl-C."""

from __future__ import annotations

import argparse
import sys
import threading

from .. import errors
from ..client.options import add_job_options, job_options
from ..client.specifying import specify
from ..client.sync import Client, connect
from ..client.terminal import Json, Terminal
from ..model.jobs import Command, Job, Phase
from . import tables
from .arguments import Parser

#: seconds of waiting that need no explanation
PATIENCE = 2.0
INTERRUPTED = 130


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    with connect() as client:
        source = Command(argv=tuple(args.command))
        job = client.submit(specify(source, local=client.status().local, **job_options(args)))
        if args.detach:
            _show_detached(job, as_json=args.json)
            return 0
        return _Attended(client, job, Json() if args.json else Terminal()).run()


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser("run", "Run a command as a job and show its output. The exit code is the command's.")
    option = parser.add_argument
    add_job_options(parser)
    option("--detach", "-d", action="store_true", help="print the job's id and leave it to run")
    parser.json_option("records (with --detach: the job), one a line, the job last,")
    option(
        "command", nargs=argparse.REMAINDER, metavar="[--] COMMAND …", help="the program and its arguments; no shell"
    )
    args = parser.parse_args(argv)
    if args.command[:1] == ["--"]:
        del args.command[0]
    if not args.command:
        parser.error("it needs a command: jupyter gpu run [options] -- python train.py")
    if args.command[0].startswith("-"):
        parser.error(f"unrecognized arguments: {args.command[0]}")
    return args


def _show_detached(job: Job, *, as_json: bool) -> None:
    if as_json:
        tables.write_json(job)
        return
    print(job.id, flush=True)
    print(f"Its output: jupyter gpu logs -f {job.id}", file=sys.stderr)


class _Attended:
    """A job that somebody watches."""

    def __init__(self, client: Client, job: Job, view: Json | Terminal) -> None:
        self._client = client
        self._job = job
        self._view = view
        self._cursor = ""
        self._cancelled = False
        #: there is output, or nothing to wait for any more
        self._speaks = threading.Event()

    def run(self) -> int:
        threading.Thread(target=self._explain_waiting, name="gpu-run-waiting", daemon=True).start()
        while True:
            try:
                for record in self._client.follow(self._job.id, self._cursor):
                    self._speaks.set()
                    self._view.show(record)
                    self._cursor = record["cursor"]
                return self._finish()
            except KeyboardInterrupt:
                self._speaks.set()
                if not self._goes_on():
                    return INTERRUPTED

    def _goes_on(self) -> bool:
        """Do what a person means who pressed Ctrl-C; False where they leave."""
        if self._cancelled:
            print(f"\nLeft before its end: jupyter gpu show {self._job.id}", file=sys.stderr)
            return False
        choice = self._asked() if sys.stdin.isatty() and sys.stderr.isatty() else "c"
        if choice == "d":
            print(f"Detached. Its output: jupyter gpu logs -f {self._job.id}", file=sys.stderr)
            return False
        if choice == "c":
            self._cancelled = True
            print("Cancelling…", file=sys.stderr)
            self._client.cancel(self._job.id)
        return True

    def _asked(self) -> str:
        print("\n[c]ancel the job, [d]etach from it, or Enter to go on? (Ctrl-C cancels) ", end="", file=sys.stderr)
        sys.stderr.flush()
        try:
            return sys.stdin.readline().strip().lower()[:1]
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return "c"

    def _finish(self) -> int:
        job = self._client.job(self._job.id)
        if isinstance(self._view, Json):
            self._view.show({"type": "job", "job": job})
        elif job.phase is not Phase.SUCCEEDED and job.reason is not None and job.reason.code != "exit_code":
            print(f"job {job.id} {job.phase}: {job.reason.message}", file=sys.stderr)
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
            print(f"[{job.id} {text}]", file=sys.stderr, flush=True)
        return text


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
