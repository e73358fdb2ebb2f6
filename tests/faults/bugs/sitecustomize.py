"""Runs at the start of every Python program that finds it, and puts one bug in where the environment names one."""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

#: seconds between a bug's acknowledgement and its commit: a kill has to come between the two
EARLY = 0.3


def acknowledge_before_commit(module: ModuleType) -> None:
    """The writer answers inside the transaction, and commits a moment later."""

    def commit(self: Any, batch: Any) -> None:
        with module.translated(), self._database.write() as connection:
            transaction = module.Transaction(connection, self._clock)
            for waiting in batch:
                result, failure = module._attempted(connection, transaction, waiting.item)
                if failure is None:
                    waiting.answer.set_result(result)
                else:
                    waiting.answer.set_exception(failure)
            position = transaction.revision() if transaction.changed else 0
            if position:
                self._database.notify(connection, module.CHANGE_CHANNEL, [str(position)])
            time.sleep(EARLY)
        self._database.changes.advance(position)

    module.Writer._commit = commit  # type: ignore[attr-defined]


def acknowledge_output_before_commit(module: ModuleType) -> None:
    """The output lane says what is durable, and commits it a moment later."""
    commit = module.OutputLane._commit_logs

    def early(self: Any, batch: Any) -> None:
        with module.translated(), self._database.read_output() as connection:
            logs = module._load(connection, [waiting.item for waiting in batch])
            outcomes = [module._outcome(waiting.item, logs) for waiting in batch]
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, int):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)
        time.sleep(EARLY)
        late = [waiting._replace(answer=module.batches.Future()) for waiting in batch]
        commit(self, late)

    from jupyter_gpu_platform.control.store import batches

    module.batches = batches  # type: ignore[attr-defined]
    module.OutputLane._commit_logs = early  # type: ignore[attr-defined]


def skip_the_fence(module: ModuleType) -> None:
    """The log takes whatever comes: neither incarnation nor cursor is looked at."""

    def append(self: Any, key: Any, incarnation: str, cluster: str, first: int, count: int, lines: bytes) -> int:
        stream = self.streams[key]
        self._take(stream, lines, count)
        stream.next_seq = first + count
        self.touched.add(key)
        return int(stream.next_seq)

    module.Log.append = append  # type: ignore[attr-defined]


def place_twice(module: ModuleType) -> None:
    """The planner gives every job to its cluster a second time, while the first attempt goes on."""
    write = module.Planner._write

    async def twice(self: Any, thought: Any, placed: Any, waiting: Any, expiring: Any) -> None:
        await write(self, thought, placed, waiting, expiring)

        def again(tx: Any) -> None:
            for place in placed:
                job = tx.job(place.job)
                if job is not None and not job.phase.ended:
                    queued = module.replace(job, phase="queued")
                    rows = module.lifecycle.place(
                        module.replace(queued, phase=module.lifecycle.Phase.QUEUED),
                        cluster=place.cluster,
                        now=time.time(),
                    )
                    tx.put_job(rows.job)
                    tx.put_attempt(rows.attempt)

        await asyncio.sleep(EARLY)
        await self._services.writer.run(again)

    module.Planner._write = twice  # type: ignore[attr-defined]


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
    "acknowledge-before-commit": ("jupyter_gpu_platform.control.store.writer", acknowledge_before_commit),
    "acknowledge-output-before-commit": ("jupyter_gpu_platform.control.store.output", acknowledge_output_before_commit),
    "skip-the-fence": ("jupyter_gpu_platform.control.store.output_log", skip_the_fence),
    "place-twice": ("jupyter_gpu_platform.control.planning", place_twice),
    "drop-the-last-record": ("jupyter_gpu_platform.control.store.output_log", drop_the_last_record),
}

if __name__ == "sitecustomize" and os.environ.get("JGP_FAULTS_BUG"):
    sys.meta_path.insert(0, _Finder(*CHANGES[os.environ["JGP_FAULTS_BUG"]]))
