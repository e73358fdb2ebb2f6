"""An older release as its programs were, beside this one's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jupyter_gpu_platform import runtime
from jupyter_gpu_platform.client import Client

from .conftest import Place, eventually


class Release:
    """Starts programs of one release."""

    def __init__(self, code: Path | None, place: Place) -> None:
        self._place = place
        self._started: list[subprocess.Popen[bytes]] = []
        self._environment = dict(os.environ)
        if code is not None:
            paths = (code, code / "cluster_agent", code / "server_extension")
            self._environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))

    def close(self) -> None:
        """End what still runs of it."""
        for process in self._started:
            process.kill()
            process.wait()

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run its control service, which ends by itself."""
        return subprocess.run(
            self._command(*options), capture_output=True, text=True, check=False, env=self._environment
        )

    def _command(self, *options: str) -> list[str]:
        return [
            sys.executable,
            "-P",
            "-m",
            "jupyter_gpu_platform.control",
            f"--state-dir={self._place.state}",
            *options,
        ]

    def start(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        """Start any of its programs; what it logs is in a file of the place."""
        number = len(list(self._place.root.glob("*.log")))
        with (self._place.root / f"{number}-{module}.log").open("wb") as log:
            command = [sys.executable, "-P", "-m", module, *options]
            self._started.append(subprocess.Popen(command, stdout=log, stderr=log, env=self._environment))
        return self._started[-1]

    def platform(self) -> tuple[subprocess.Popen[bytes], Client]:
        """Start its local platform."""
        process = self.start("jupyter_gpu_platform.control", "--local", f"--state-dir={self._place.state}")

        def listening() -> runtime.RuntimeFile | None:
            assert process.poll() is None, "\n".join(path.read_text() for path in self._place.root.glob("*.log"))
            found = runtime.read_runtime_file()
            return found if found is not None and found.pid == process.pid else None

        found = eventually(listening, "the platform to listen")
        return process, Client(found.url, found.token)
