"""Each fault: whom it hits, what it does to them, and how that is undone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import psutil

from .ledger import Ledger, Run, tokens
from .load import Told
from .people import People
from .platforms import Platform
from .programs import kill
from .proxy import Proxy
from .schedule import Fault

#: seconds that a fault waits for a victim
PATIENCE = 15.0
#: seconds after which the jobs of an agent that says nothing are called unreachable, and some more
UNHEARD = 60.0
#: seconds that a full disk, and a jump of the clock, lasts at least
LONG = 3.0


@dataclass
class Hits:
    """What was really hit."""

    #: fault → how often
    count: dict[str, int] = field(default_factory=dict)
    #: fault → jobs that were in mid-run then, over all hits
    caught: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    #: runs whose own code was killed
    workers: set[Run] = field(default_factory=set)
    #: runs whose supervisor was killed → the tokens that its spool held then
    supervisors: dict[Run, list[str]] = field(default_factory=dict)


class Hurting:
    """Carries out a seed's faults."""

    def __init__(self, platform: Platform, ledger: Ledger, told: Told) -> None:
        self.platform = platform
        self.ledger = ledger
        self.ids = told.ids
        self.people = People(platform, ledger, told)
        self.hits = Hits()

    async def hurt(self, fault: Fault) -> None:
        """Do it, and undo it after its time."""
        kind, _, what = fault.name.partition("-")
        act = getattr(self, f"_{kind.replace('half', 'half_open')}")
        await act(fault, what.removeprefix("open-"), Random(fault.seed))

    def _hit(self, fault: Fault) -> None:
        name, hits = fault.name, self.hits
        hits.count[name] = hits.count.get(name, 0) + 1
        hits.caught[name] = hits.caught.get(name, 0) + len(self.ledger.running())

    def _miss(self, fault: Fault) -> None:
        self.hits.missed[fault.name] = self.hits.missed.get(fault.name, 0) + 1

    async def _victim(self, fault: Fault, what: str, chance: Random) -> list[int]:
        """Choose a process of that kind; wait for one."""
        find: Callable[[], list[list[int]]] = {
            "control": self.platform.controls,
            "agent": self.platform.agents,
            "database": self.platform.databases,
        }[what]
        for _ in range(int(PATIENCE / 0.1)):
            if found := [pids for pids in find() if pids]:
                return chance.choice(found)
            await asyncio.sleep(0.1)
        self._miss(fault)
        return []

    async def _victim_run(self, fault: Fault, chance: Random) -> tuple[Run, int, int] | None:
        """Choose a running job; return it with the process ids of its supervisor and of its own code."""
        for _ in range(int(PATIENCE / 0.05)):
            for run in chance.sample(running := self.ledger.running(), len(running)):
                supervisor = self._supervisor(run)
                if supervisor is not None:
                    return run, supervisor, self.ledger.started[run]
            await asyncio.sleep(0.05)
        self._miss(fault)
        return None

    def _folder(self, run: Run) -> Path:
        return self.platform.attempts / f"{self.ids.get(run[0], 'unknown')}.{run[1]}"

    def _supervisor(self, run: Run) -> int | None:
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            pid = json.loads((self._folder(run) / "supervisor.json").read_bytes())["pid"]
            if psutil.Process(self.ledger.started[run]).ppid() == pid:
                return int(pid)
        return None

    # --- kills

    async def _kill(self, fault: Fault, what: str, chance: Random) -> None:
        if what in ("supervisor", "worker"):
            found = await self._victim_run(fault, chance)
            if found is not None:
                await self._kill_run(fault, what, *found)
            return
        victims = await self._victim(fault, what, chance)
        # A database is killed as a whole, or one of its servers is, on which it recovers by itself.
        if victims and kill(victims[0] if chance.random() < 0.5 else chance.choice(victims)):
            self._hit(fault)

    async def _kill_run(self, fault: Fault, what: str, run: Run, supervisor: int, own: int) -> None:
        if what == "worker":
            # Noted first: it may have ended by itself just now, and then nothing is expected of this.
            self._hit(fault)
            self.hits.workers.add(run)
            kill(own)
            return
        # Held first, so that what its spool holds at its death is known.
        if not kill(supervisor, signal.SIGSTOP):
            return
        await _stopped(supervisor)
        self._hit(fault)
        self.hits.supervisors[run] = _spooled(self._folder(run) / "spool")
        kill(supervisor)

    # --- stops

    async def _stop(self, fault: Fault, what: str, chance: Random) -> None:
        if what in ("supervisor", "worker"):
            found = await self._victim_run(fault, chance)
            victims = []
            if found is not None:
                _, supervisor, own = found
                victims.append(supervisor if what == "supervisor" else own)
        else:
            victims = await self._victim(fault, what, chance)
        stopped = [pid for pid in victims if kill(pid, signal.SIGSTOP)]
        if not stopped:
            return
        self._hit(fault)
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            for pid in stopped:
                kill(pid, signal.SIGCONT)

    # --- connections

    async def _proxy(self, fault: Fault, what: str, chance: Random) -> Proxy | None:
        platform = self.platform
        kinds = {
            "client": platform.client_proxies,
            "agent": platform.agent_proxies,
            "peer": platform.peer_proxies,
            "database": platform.database_proxies,
        }
        if not kinds[what]:
            self._miss(fault)
            return None
        self._hit(fault)
        return chance.choice(kinds[what])

    async def _cut(self, fault: Fault, what: str, chance: Random) -> None:
        proxy = await self._proxy(fault, what, chance)
        if proxy is None:
            return
        proxy.refusing = chance.random() < 0.5
        proxy.cut()
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            proxy.refusing = False

    async def _delay(self, fault: Fault, what: str, chance: Random) -> None:
        proxy = await self._proxy(fault, what, chance)
        if proxy is None:
            return
        proxy.delay = chance.choice([0.02, 0.1, 0.3])
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            proxy.delay = 0.0

    async def _stall(self, fault: Fault, what: str, chance: Random) -> None:
        proxy = await self._proxy(fault, what, chance)
        if proxy is None:
            return
        proxy.stall(True)
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            proxy.stall(False)
            if chance.random() < 0.5:
                proxy.cut()

    async def _half_open(self, fault: Fault, what: str, chance: Random) -> None:
        proxy = await self._proxy(fault, what, chance)
        if proxy is None:
            return
        proxy.half_open()
        if what == "database":
            # Only the machine's own TCP notices that nobody is there; the others have to notice it themselves.
            await asyncio.sleep(LONG + fault.lasts)
            proxy.end_half_open()

    async def _slow(self, fault: Fault, what: str, chance: Random) -> None:
        """Read the change log and a job's output a few bytes at a time."""
        if not self.ids:
            self._miss(fault)
            return
        self._hit(fault)
        job = chance.choice(list(self.ids.values()))
        at = self.platform.endpoint(chance.choice(self.platform.client_proxies))
        paths = (f"/api/v1/jobs/{job}/output?follow=true", "/api/v1/changes?after=0&follow=true")
        await asyncio.gather(*(_sip(at.url, at.token, path, LONG + fault.lasts) for path in paths))

    # --- people

    async def _person(self, fault: Fault, what: str, chance: Random) -> None:
        """Do what a person may do to a job."""
        if what != "abandon":
            number = self.people.choose(what, chance)
            if number is None:
                self._miss(fault)
                return
            self._hit(fault)
            await self.people.ask(what, number, chance)
            return
        victims = await self._victim(fault, "agent", chance)
        stopped = [pid for pid in victims if kill(pid, signal.SIGSTOP)]
        try:
            number = await self.people.find_unreachable(UNHEARD)
            if number is None:
                self._miss(fault)
                return
            self._hit(fault)
            await self.people.ask(what, number, chance)
        finally:
            for pid in stopped:
                kill(pid, signal.SIGCONT)

    # --- disks and clocks

    async def _full(self, fault: Fault, what: str, chance: Random) -> None:
        """Leave no room on a disk for a while."""
        disk = self.platform.disks.get(fault.name)
        if disk is None:
            self._miss(fault)
            return
        self._hit(fault)
        filler, loop = disk / "filler", asyncio.get_running_loop()
        until = loop.time() + LONG + fault.lasts
        try:
            while loop.time() < until:
                await asyncio.to_thread(_fill, filler)  # again and again: what is deleted makes room
                await asyncio.sleep(0.05)
        finally:
            filler.unlink(missing_ok=True)

    async def _clock(self, fault: Fault, what: str, chance: Random) -> None:
        if not self.platform.clocks:
            self._miss(fault)
            return
        self._hit(fault)
        clock = chance.choice(self.platform.clocks)
        clock.write_text(f"{chance.choice([-7200, -60, -5, 5, 60, 7200]):+d}\n")
        try:
            await asyncio.sleep(LONG + fault.lasts)
        finally:
            clock.write_text("+0\n")


async def _stopped(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):  # noqa: ASYNC110 -- another process's state
            await asyncio.sleep(0.005)


def _spooled(folder: Path) -> list[str]:
    """The tokens in a spool's whole lines."""
    records: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.ndjson")):
        whole = path.read_bytes().rpartition(b"\n")[0]
        records += [json.loads(line) for line in whole.split(b"\n") if line]
    return tokens(records)


async def _sip(url: str, token: str, path: str, lasts: float) -> None:
    """Ask for a stream, and hardly read it."""
    at = urlsplit(url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(lasts):
                await loop.sock_connect(sock, (at.hostname, at.port))
                request = f"GET {path} HTTP/1.1\r\nHost: faults\r\nAuthorization: Bearer {token}\r\n\r\n"
                await loop.sock_sendall(sock, request.encode())
                while await loop.sock_recv(sock, 64):  # noqa: ASYNC110 -- it is slow on purpose
                    await asyncio.sleep(0.1)


def _fill(path: Path) -> None:
    """Take what room is left on the disk that *path* lies on."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
        while free > 0 and file.write(b"\0" * min(free, 2**20)):
            free -= 2**20
        file.write(b"\0" * 4096)
