"""Runs at the start of every Python program that finds it, and puts one bug in where the environment names one."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.abc
import importlib.machinery
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

#: seconds between a bug's acknowledgement and its commit: a kill has to come between the two
EARLY = 0.3
#: the same of output, of which more has to be lost: as long as its spool has it, it is sent again
EARLY_OUTPUT = 1.0


def _late(open_: Any, table: str, seconds: float) -> Any:
    """Let a transaction's block end before its commit, which follows on another thread, where it adds to *table*.

    Only there: an agent, say, could never connect if its own lease were late.
    """

    @contextlib.contextmanager
    def write(self: Any) -> Iterator[Any]:
        manager = open_(self)
        connection = manager.__enter__()
        before = _rows(connection, table)
        try:
            yield connection
        except BaseException:
            if not manager.__exit__(*sys.exc_info()):
                raise
            return

        if _rows(connection, table) == before:
            manager.__exit__(None, None, None)
            return

        def commit() -> None:
            time.sleep(seconds)
            manager.__exit__(None, None, None)

        threading.Thread(target=commit, daemon=True).start()

    return write


def _rows(connection: Any, table: str) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar())


def acknowledge_before_commit(module: ModuleType) -> None:
    """Submitted jobs are accepted, and committed a moment later."""
    module.Database.write = _late(module.Database.write, "job", EARLY)  # type: ignore[attr-defined]


def acknowledge_output_before_commit(module: ModuleType) -> None:
    """Records are said to be durable, and committed a moment later."""
    module.Database.write_output = _late(module.Database.write_output, "output_chunk", EARLY_OUTPUT)  # type: ignore[attr-defined]


def skip_the_fence(module: ModuleType) -> None:
    """The output log takes whatever comes: it looks at neither incarnation nor cursor."""
    append = module.Log.append

    def unfenced(self: Any, key: Any, incarnation: str, cluster: str, first: int, count: int, lines: bytes) -> int:
        stream = self.streams.get(key)
        if stream is not None:
            stream.incarnation, stream.cluster, stream.next_seq = incarnation, cluster, first
        return int(append(self, key, incarnation, cluster, first, count, lines))

    module.Log.append = unfenced  # type: ignore[attr-defined]


def place_twice(module: ModuleType) -> None:
    """The planner gives every job to its cluster again once it runs, and both attempts are to go on."""
    write, lifecycle = module.Planner._write, module.lifecycle
    wanted = lifecycle.wanted
    tasks = set()

    async def twice(self: Any, thought: Any) -> None:
        await write(self, thought)
        task = asyncio.create_task(again(self, {place.job: place.cluster for place in thought.plan.placed}))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def again(self: Any, clusters: dict[str, str]) -> None:
        for _ in range(100):
            await asyncio.sleep(0.05)

            def place(tx: Any) -> None:
                for name in list(clusters):
                    job = tx.job(name)
                    if job is not None and job.phase is lifecycle.Phase.RUNNING:
                        queued = module.replace(job, phase=lifecycle.Phase.QUEUED)
                        rows = lifecycle.place(queued, cluster=clusters.pop(name), now=time.time())
                        tx.put_job(rows.job)
                        tx.put_attempt(rows.attempt)

            if clusters:
                await self._services.writer.run(place)

    def still_wanted(job: Any, attempt: Any) -> Any:
        return wanted(module.replace(job, attempt=attempt.number), attempt)

    module.Planner._write = twice  # type: ignore[attr-defined]
    lifecycle.wanted = still_wanted


def drop_the_last_record(module: ModuleType) -> None:
    """The last record before a job's exit is acknowledged and not kept; the numbers close over it."""
    append = module.Log.append

    def dropping(self: Any, key: Any, incarnation: str, cluster: str, first: int, count: int, lines: bytes) -> int:
        whole = lines.splitlines(keepends=True)
        if len(whole) > 1 and b'"type":"exit"' in whole[-1]:
            kept = [
                *whole[:-2],
                whole[-1].replace(b'"seq":%d' % (first + count - 1), b'"seq":%d' % (first + count - 2)),
            ]
            append(self, key, incarnation, cluster, first, count - 1, b"".join(kept))
            self.streams[key].next_seq = first + count
            return first + count
        return int(append(self, key, incarnation, cluster, first, count, lines))

    module.Log.append = dropping  # type: ignore[attr-defined]


class _Finder(importlib.abc.MetaPathFinder):
    """Lets one module be imported as always, and changes it then."""

    def __init__(self, name: str, change: Any) -> None:
        self.name = name
        self.change = change

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != self.name:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is None or found.loader is None:
            return None
        execute = found.loader.exec_module

        def changed(module: ModuleType) -> None:
            execute(module)
            self.change(module)

        found.loader.exec_module = changed  # type: ignore[method-assign]
        return found


CHANGES = {
    "acknowledge-before-commit": ("jupyter_gpu_platform.control.store.database", acknowledge_before_commit),
    "acknowledge-output-before-commit": (
        "jupyter_gpu_platform.control.store.database",
        acknowledge_output_before_commit,
    ),
    "skip-the-fence": ("jupyter_gpu_platform.control.store.output_log", skip_the_fence),
    "place-twice": ("jupyter_gpu_platform.control.planning", place_twice),
    "drop-the-last-record": ("jupyter_gpu_platform.control.store.output_log", drop_the_last_record),
}

if __name__ == "sitecustomize" and os.environ.get("JGP_FAULTS_BUG"):
    sys.meta_path.insert(0, _Finder(*CHANGES[os.environ["JGP_FAULTS_BUG"]]))
