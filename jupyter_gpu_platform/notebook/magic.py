"""The magics: ``%%gpu_run`` runs a cell as a job, ``%gpu_run`` a script or command, ``%gpu`` comes back to one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .. import errors
from ..model.jobs import Job
from . import asking, failures, handle, options, submitting, verbs
from .config import GpuMagics
from .following import Feed, submitted, watch
from .replay import FarResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client import Client


def _connect() -> Callable[[], Client]:
    """Return what gives the client of the service that is meant here, started where that is what it takes."""
    # Imported here: loading the extension stays quick.
    from ..client.current import current

    return current().client


class Magic:
    """The magics of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.settings = GpuMagics(parent=shell)
        self._newest: handle.Job[Any] | None = None

    def gpu_run(self, line: str, cell: str | None = None) -> Any:
        try:
            return self._gpu_run(line, cell)
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from None

    gpu_run.__doc__ = options.help_text()

    def gpu(self, line: str) -> Any:
        try:
            return verbs.Verbs(_connect(), lambda: self._newest, self.settings, self._shell.user_ns).run(line)
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from None

    gpu.__doc__ = verbs.HELP

    def _gpu_run(self, text: str, cell: str | None) -> Any:
        line = options.parse(
            text, cell=cell is not None, defaults=self.settings.defaults(), presets=self.settings.presets
        )
        # IPython ends a magic's body with a newline of its own; line numbers and semicolons are the raw cell's.
        code = None if cell is None else cell.removesuffix("\n")
        if line.help or not (text.strip() or (code or "").strip()):
            sys.stdout.write(options.help_text())
            return None
        work = self._words(line) if code is None else self._cell(line, code)
        connect = _connect()
        if line.dry_run:
            return submitting.preview(connect(), work)
        return self._run(connect, line, work)

    def _words(self, line: options.Line) -> submitting.Work:
        if not line.words:
            raise errors.InvalidRequest(
                "%gpu_run: there is nothing to run", hint="%gpu_run [options] script.py, or a cell under %%gpu_run."
            )
        return submitting.words(line)

    def _cell(self, line: options.Line, code: str) -> submitting.Work:
        if not code.strip():
            raise errors.InvalidRequest("%%gpu_run: the cell is empty", hint="Put the code below the %%gpu_run line.")
        if code.lstrip().startswith("%%gpu_run"):
            raise errors.InvalidRequest("%%gpu_run stands under %%gpu_run", hint="Put all options on one such line.")
        return submitting.cell(
            self._shell.user_ns,
            line,
            code,
            # The number of this cell: the shell's own counter may be at the next one already (IPython 9.18).
            count=self._shell.displayhook.prompt_count,
            hidden=self._shell.user_ns_hidden,
            frontend=asking.frontend(self._shell, waits=not line.detach),
            limit=line.capture_limit or self.settings.capture_limit,
        )

    def _run(self, connect: Callable[[], Client], line: options.Line, work: submitting.Work) -> handle.Job[Any] | None:
        def submit(client: Client) -> Job:
            job = submitting.submit(client, work)
            self._newest = handle.Job(connect, job)
            return job

        if line.detach:
            return handle.Job(connect, submitted(Feed(connect, submit, output=False)))
        feed = Feed(connect, submit)
        failure: BaseException | None = None
        try:
            watch(
                self._shell,
                feed,
                on_interrupt=line.on_interrupt,
                ours=True,
                missed=lambda name: work.missed(name, self._shell.user_ns),
            )
        except BaseException as error:  # noqa: BLE001 - raised below: what a failed cell left comes back too
            failure = error
        if feed.job is not None and feed.values is not None:
            self._bring_back(connect(), feed.job, feed.values, failure)
        if failure is not None:
            raise failure
        return None

    def _bring_back(self, client: Client, job: Job, values: dict[str, Any], failure: BaseException | None) -> None:
        """Put what the job left into the notebook.

        :param failure: what the cell is about to raise; trouble here is only told then.
        """
        from . import returning

        try:
            returned = returning.take(
                # It was submitted here: its owner is who asks.
                client, job, values, self._shell.user_ns, user=job.owner, eager=self.settings.eager_limit
            )  # fmt: skip
        except errors.GpuPlatformError as error:
            if failure is None:
                raise
            returned = returning.Returned(warnings=[str(error)])
        for warning in returned.warnings:
            sys.stderr.write(warning + "\n")
        if returned.has_result and not isinstance(returned.result, returning.LazyValue):
            _make_real(self._shell, returned.result)


def _make_real(shell: Any, value: object) -> None:
    """Let ``_`` and ``Out`` be the value itself, where they hold the picture of it that was shown."""
    hook, names = shell.displayhook, shell.user_ns
    shown = names["_oh"].get(hook.prompt_count)
    if not isinstance(shown, FarResult):
        return
    names["_oh"][hook.prompt_count] = value
    for name in ("_", "__", "___", f"_{hook.prompt_count}"):
        # The hidden names say which `_` is IPython's own: one that differs was made by the user and is left alone.
        for namespace in (names, shell.user_ns_hidden):
            if namespace.get(name) is shown:
                namespace[name] = value
        if getattr(hook, name, None) is shown:
            setattr(hook, name, value)
