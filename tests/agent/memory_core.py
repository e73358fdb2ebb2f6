"""An agent's core that lives in memory: what executors are tried out with."""

from __future__ import annotations

import asyncio
import contextlib
import json

from jupyter_gpu_agent.executors import AttemptKey, OutOfSequence, Wanted

from jupyter_gpu_platform.errors import ClaimLost
from jupyter_gpu_platform.wire.messages import ClaimResult

KEY = AttemptKey("j1", 1)


class MemoryCore:
    """An `AgentCore` whose service commits at once, and remembers what an agent's restart does not lose."""

    def __init__(self):
        self.changed = asyncio.Condition()
        self.lines = {}
        self.claimed = {}
        self.reports = {}
        self.wanted = {}
        self.grant = True
        self.is_fenced = set()
        self.failures = 0

    async def claim(self, job, attempt, replica, incarnation):
        async with self.changed:
            if self.grant:
                self.claimed[AttemptKey(job, attempt)] = incarnation
            self.changed.notify_all()
        return ClaimResult(request=1, granted=self.grant, refusal="" if self.grant else "it is not yours")

    async def append(self, key, incarnation, first, count, lines):
        attempt = AttemptKey(key.job, key.attempt)
        if self.claimed.get(attempt) != incarnation:
            raise ClaimLost("not claimed")
        have = self.lines.setdefault(attempt, [])
        if first > len(have) + 1:
            raise OutOfSequence(len(have) + 1)
        async with self.changed:
            have.extend(lines.splitlines()[len(have) + 1 - first :])
            self.changed.notify_all()

    def durable(self, key):
        return len(self.lines.get(AttemptKey(key.job, key.attempt), ())) + 1

    def expected(self, key):
        return None

    def fenced(self, key):
        return key in self.is_fenced

    async def wait_wanted(self, key, generation, durable, inputs, timeout):
        attempt = AttemptKey(key.job, key.attempt)

        def news():
            return self.wanted.get(attempt, Wanted(1, "run", 0, 10.0, 1)).generation > generation or (
                self.durable(key) > durable
            )

        async with self.changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait_for(news), timeout)
        return self.wanted.get(attempt, Wanted(1, "run", 0, 10.0, 1))._replace(durable=self.durable(key))

    async def ended(self, report):
        async with self.changed:
            self.reports[AttemptKey(report.job, report.attempt)] = report
            self.changed.notify_all()

    def progress(self, started):
        pass

    def failed(self):
        self.failures += 1

    def capacity_changed(self, capacity):
        pass

    # --- what tests do

    async def want(self, action, generation=2, grace=10.0, key=KEY):
        async with self.changed:
            self.wanted[key] = Wanted(generation, action, 0, grace, 1)
            self.changed.notify_all()

    async def until(self, check, seconds=30):
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(check)

    async def report(self, key=KEY):
        await self.until(lambda: key in self.reports)
        return self.reports[key]

    def records(self, key=KEY):
        records = [json.loads(line) for line in self.lines.get(key, ())]
        assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
        return records

    def text(self, key=KEY):
        return "".join(r["text"] for r in self.records(key) if r["type"] == "stream" and r["name"] == "stdout")
