"""What jobs in pods really did, told by the jobs themselves to a server that no part of the platform touches.

A job's connection is its lock: while one holds it, another of the same number is turned away. It tells each record
before it shows it.
"""

from __future__ import annotations

import socketserver
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

#: What each job runs.
PROGRAM = """
import os, socket, sys, time
host, port, number, records, pause = ARGUMENTS
ledger = socket.create_connection((host, port)).makefile("rw", newline="\\n")
def tell(line):
    ledger.write(line + "\\n")
    ledger.flush()
    return ledger.readline().strip()
if tell("hold %d" % number) != "ok":
    os._exit(9)
for n in range(records):
    tell("record %d" % n)
    print("%d.%d" % (number, n), flush=True)
    time.sleep(pause)
tell("end")
"""


class Ledger:
    """Listens where pods reach it.

    :param address: of the cluster's bridge.
    """

    def __init__(self, address: str) -> None:
        self.starts: Counter[int] = Counter()
        self.ends: Counter[int] = Counter()
        #: numbers of jobs that ran twice at one time
        self.twice: list[int] = []
        self.records: defaultdict[int, list[str]] = defaultdict(list)
        self._held: set[int] = set()
        self._lock = threading.Lock()
        ledger = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                ledger._serve(self)

        self._server = socketserver.ThreadingTCPServer((address, 0), Handler)
        self._server.daemon_threads = True

    @property
    def at(self) -> tuple[str, int]:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def program(self, number: int, records: int, pause: float) -> tuple[str, ...]:
        """Return the command of a job."""
        return ("python3", "-c", f"ARGUMENTS = {(*self.at, number, records, pause)!r}{PROGRAM}")

    @contextmanager
    def listening(self) -> Iterator[Ledger]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _serve(self, handler: socketserver.StreamRequestHandler) -> None:
        number = int(handler.rfile.readline().split()[1])
        with self._lock:
            self.starts[number] += 1
            if number in self._held:
                self.twice.append(number)
                handler.wfile.write(b"no\n")
                return
            self._held.add(number)
        handler.wfile.write(b"ok\n")
        try:
            for line in handler.rfile:
                word, _, rest = line.decode().strip().partition(" ")
                if word == "end":
                    self.ends[number] += 1
                else:
                    self.records[number].append(f"{number}.{rest}")
                handler.wfile.write(b"ok\n")
        except OSError:
            pass  # its machine was cut off
        finally:
            with self._lock:
                self._held.discard(number)
