"""Tab behind ``%%gpu_run``, ``%gpu_run`` and ``%gpu``: options, and what there is for them.

Clusters, GPU models and jobs are asked for in a thread and remembered for a while; Tab waits for them only as long
as `GpuMagics.completion_ms` says. Nothing here starts a platform, and nothing here raises.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.jobs import Phase
from . import options
from .config import GpuMagics
from .verbs import VERBS

if TYPE_CHECKING:
    from ..client import Client

_log = logging.getLogger(__name__)

#: seconds for which an answer of the service is offered again without asking
REMEMBERED = 10.0
#: newest jobs that are offered
JOBS = 50
#: what is completed; a cell's code below is the shell's business
_COMMANDS = ("%%gpu_run", "%gpu_run", "%gpu")
_MATCHER = "jupyter_gpu_platform"
#: verbs that take a job
OF_JOBS = ("show", "logs", "output", "attach", "result", "cancel", "status")


class Known:
    """What the service knows, asked for behind the scenes.

    :param connect: gives a client; raises where no platform runs.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[float, list[str]]] = {}
        self._asking: dict[str, threading.Event] = {}

    def get(self, what: str, patience: float) -> list[str]:
        """Return the names of *what* (``clusters``, ``models``, ``jobs``), those of the last time if it takes longer.

        :param patience: seconds; 0 doesn't ask.
        """
        with self._lock:
            asked, names = self._answers.get(what, (float("-inf"), []))
            if time.monotonic() - asked < REMEMBERED or patience <= 0:
                return names
            answered = self._asking.get(what)
            if answered is None:
                answered = self._asking[what] = threading.Event()
                threading.Thread(target=self._ask, args=(what, answered), name="gpu-complete", daemon=True).start()
        answered.wait(patience)
        with self._lock:
            return self._answers.get(what, (0.0, names))[1]

    def _ask(self, what: str, answered: threading.Event) -> None:
        names: list[str] = []
        try:
            names = _ASK[what](self._connect())
        except Exception as error:  # noqa: BLE001 - the thread's edge: nothing is offered, and Tab asks again later
            _log.debug("completing %s: %s", what, error)
        with self._lock:
            self._answers[what] = (time.monotonic(), names)
            del self._asking[what]
        answered.set()


def _models(client: Client) -> list[str]:
    return sorted({gpu["model"] for one in client.clusters() for gpu in (one.get("capacity") or {}).get("gpus", ())})


_ASK: dict[str, Callable[[Client], list[str]]] = {
    "clusters": lambda client: [one["name"] for one in client.clusters()],
    "models": _models,
    "jobs": lambda client: [job.id for job in client.jobs(limit=JOBS).items],
    "open jobs": lambda client: [
        job.id for job in client.jobs(limit=JOBS, phases=[phase for phase in Phase if not phase.ended]).items
    ],
}


class Completer:
    """Completes lines of our magics."""

    def __init__(self, known: Known, settings: GpuMagics, namespace: dict[str, Any]) -> None:
        self._known, self._settings, self._namespace = known, settings, namespace

    def complete(self, text_until_cursor: str, symbol: str) -> list[str]:
        """Return what may stand in place of *symbol*, the word at the cursor; empty leaves it to the shell."""
        words = text_until_cursor.split()
        if not words or words[0] not in _COMMANDS:
            return []
        before = words if not text_until_cursor.endswith(symbol) or not symbol else words[:-1]
        if not before:
            return []
        if before[0] == "%gpu":
            return self._verb(before[1:], symbol)
        return self._line(before[1:], symbol, cell=before[0].startswith("%%"))

    def _get(self, what: str) -> list[str]:
        return self._known.get(what, self._settings.completion_ms / 1000)

    def _verb(self, before: list[str], symbol: str) -> list[str]:
        if not before:
            return _beginning(VERBS, symbol)
        verb = before[0]
        if verb == "config":
            return _beginning((f"{name}=" for name, _, _ in self._settings.rows()), symbol)
        if symbol.startswith("-"):
            return _beginning({"jobs": ["--all"], "logs": ["--tail"]}.get(verb, []), symbol)
        if verb in OF_JOBS:
            return _beginning(self._get("open jobs" if verb == "cancel" else "jobs"), symbol)
        return []

    def _line(self, before: list[str], symbol: str, *, cell: bool) -> list[str]:
        found = options.parser()
        by_flag = {flag: action for action in found._actions for flag in action.option_strings}
        last = before[-1] if before else ""
        if last in by_flag and by_flag[last].nargs != 0:
            return _beginning(self._values(last, by_flag[last]), symbol)
        end = options.end_of_options(before, found._actions)
        if end < len(before):
            return []  # the arguments of a script or command: the shell offers files
        if symbol.startswith("-") or cell:
            return _beginning(options.flags(found), symbol)
        return (
            _beginning([path.name for path in Path.cwd().glob("*.py")], symbol)
            if not symbol or "/" not in symbol
            else []
        )

    def _values(self, flag: str, action: argparse.Action) -> Iterable[str]:
        match flag:
            case "--cluster":
                return self._get("clusters")
            case "--gpu-model":
                return [repr(model) if " " in model else model for model in self._get("models")]
            case "--preset":
                return list(self._settings.presets)
            case "--in" | "--out":
                return [name for name in self._namespace if not name.startswith("_")]
            case _:
                return [str(choice) for choice in action.choices or ()]


def _beginning(names: Iterable[str], symbol: str) -> list[str]:
    """Return the names that begin with *symbol*, as it is or in other case, or in quotes."""
    low = symbol.lower()
    return [name for name in names if name.lower().startswith(low)]


def register(shell: Any, completer: Completer) -> None:
    """Let *shell* ask *completer* on Tab, before its own matchers; those are not asked where it has something."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier=_MATCHER, priority=100)  # type: ignore[untyped-decorator, unused-ignore] # IPython has no types
    def match(context: Any) -> dict[str, Any]:
        try:
            found = completer.complete(context.text_until_cursor, context.token)
        except Exception:  # noqa: BLE001 - in the middle of a keystroke
            _log.debug("completing %r", context.text_until_cursor, exc_info=True)
            found = []
        return {"completions": [SimpleCompletion(text) for text in found], "suppress": bool(found), "ordered": True}

    matchers = shell.Completer.custom_matchers
    matchers[:] = [one for one in matchers if getattr(one, "matcher_identifier", "") != _MATCHER]
    matchers.append(match)
