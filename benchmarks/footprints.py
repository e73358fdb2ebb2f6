"""What each process of a private platform costs while something runs: memory and processor time, by its part in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import psutil

#: seconds between two looks
EVERY = 0.25
MIB = 2**20


class Footprints:
    """Looks at the resident memory of all processes of the platform in *folder*, and of this one, until left."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._own = psutil.Process()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        #: MiB of each part at each look
        self.seen: dict[str, list[float]] = {}
        #: processor seconds by process: what it had used at the first and at the last look
        self._used: dict[tuple[str, int], list[float]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        known: dict[int, str] = {}
        while not self._over.wait(EVERY):
            for process in self._processes(known):
                try:
                    part = known.get(process.pid) or self._part(process)
                    held, times = process.memory_info().rss / MIB, process.cpu_times()
                except psutil.Error:
                    continue
                known[process.pid] = part
                self.seen.setdefault(part, []).append(held)
                self._used.setdefault((part, process.pid), []).append(times.user + times.system)

    def _processes(self, known: dict[int, str]) -> Iterator[psutil.Process]:
        yield self._own
        for process in psutil.process_iter(["cmdline", "environ", "ppid"]):
            info = process.info
            named = any(self._folder in word for word in info["cmdline"] or ())
            of_ours = self._folder in (info["environ"] or {}).get("JUPYTER_GPU_STATE_DIR", "")
            # What a job runs knows nothing of the platform.
            if process.pid != os.getpid() and (named or of_ours or known.get(info["ppid"]) == "supervisor"):
                yield process

    def _part(self, process: psutil.Process) -> str:
        words = process.cmdline()
        if process.pid == self._own.pid:
            return "this program"
        for word, part in (("worker", "job"), ("jupyter_gpu_agent", "agent"), ("ipykernel_launcher", "kernel")):
            if word in words:
                return part
        if any(word.endswith("jupyter_gpu_platform.control") for word in words):
            return "control service"
        return "supervisor" if any("runner" in word for word in words) else "job"

    def lines(self) -> list[str]:
        """Say the largest of each part, how much it rose over the second half, and its processor time."""
        return [
            f"{part}: {max(held):.0f} MiB at most, {_rise(held):+.1f} MiB over the second half, {self._cpu(part):.1f} s"
            for part, held in sorted(self.seen.items())
        ]

    def _cpu(self, part: str) -> float:
        return sum(used[-1] - used[0] for (of, _), used in self._used.items() if of == part)


def _rise(held: list[float]) -> float:
    """The last tenth's mean less that of the tenth after the middle."""
    tenth = max(1, len(held) // 10)
    middle, last = held[len(held) // 2 :][:tenth], held[-tenth:]
    return sum(last) / len(last) - sum(middle) / len(middle)
