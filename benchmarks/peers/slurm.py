"""Slurm's controller with one node that is away: ``apt-get install slurm-wlm munge``, and root to start it.

Jobs are held; one ``sbatch`` is a submission, as it is for its users.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scale import free_port

from . import PATIENCE, running

_CLIENTS = 64
_CONFIGURATION = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
ProctrackType=proctrack/pgid
MailProg=/bin/true
MaxJobCount=200000
NodeName=away NodeAddr=127.0.0.1 Port={away} CPUs=1 State=DOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Say why it can't be measured here; empty where it can."""
    if os.getuid() != 0:
        return "Slurm's controller is started by root here"
    absent = [name for name in ("sbatch", "slurmctld", "munged") if shutil.which(name) is None]
    return f"no {', '.join(absent)}: apt-get install slurm-wlm munge" if absent else ""


def name() -> str:
    said = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout.split()
    return f"Slurm {said[-1]}, sbatch --hold, {_CLIENTS} at a time"


@contextlib.contextmanager
def submissions() -> Iterator[Callable[[float], float]]:
    with tempfile.TemporaryDirectory(prefix="jgp-bench-peer-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        configuration = folder / "slurm.conf"
        settings = {"host": socket.gethostname(), "port": free_port(), "away": free_port(), "folder": folder}
        configuration.write_text(_CONFIGURATION.format(**settings))
        files = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "log", "seed")]
        munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
        env = {"SLURM_CONF": str(configuration)}
        log = folder / "log"
        with running(munged, log), running(["slurmctld", "-D", "-i", "-f", str(configuration)], log, env):
            _await_controller(env, log)
            yield lambda seconds: _rate(env, seconds)


def _sbatch() -> list[str]:
    return ["sbatch", "--hold", "--quiet", "--output=/dev/null", "--wrap=true"]


def _await_controller(env: dict[str, str], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while subprocess.run(_sbatch(), env=os.environ | env, capture_output=True, check=False).returncode != 0:
        if time.monotonic() > until:
            raise RuntimeError(f"Slurm's controller takes no job: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.3)


def _rate(env: dict[str, str], seconds: float) -> float:
    """Submit for about so long: as many as a first few take, by that measure."""
    count, rate = _CLIENTS, 0.0
    for _ in range(2):
        began = time.perf_counter()
        command = f"seq {count} | xargs -P {_CLIENTS} -I _ {' '.join(_sbatch())}"
        subprocess.run(["sh", "-c", command], env=os.environ | env, check=True, capture_output=True)
        rate = count / (time.perf_counter() - began)
        count = max(_CLIENTS, int(rate * seconds))
    return rate
