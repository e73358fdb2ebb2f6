"""This machine's own platform: what is trusted, what is refused, and that starting and stopping it works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from jupyter_gpu_platform import __version__, errors, runtime
from jupyter_gpu_platform.client import Client, connect, local
from jupyter_gpu_platform.runtime import RuntimeFile

from .conftest import JOB, Service, ok, problem

#: a program that listens and ends when it is asked to: all that a hand-over sees of an older release
OLDER = """
import http.server, os, sys
from jupyter_gpu_platform import runtime
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(202); self.end_headers(); self.wfile.flush(); os._exit(0)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
runtime.write_runtime_file(runtime.RuntimeFile(url=f"http://127.0.0.1:{server.server_port}", token="t",
    host=os.uname().nodename, boot_id=runtime.boot_id(), pid=os.getpid(),
    pid_start=runtime.process_start(os.getpid()), state_dir=sys.argv[1], version="0.0.1"))
print("ready", flush=True)
server.serve_forever()
"""


def eventually(look: Callable[[], object], what: str, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not look():
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}"
        signal.sigtimedwait([], 0.05)


def end_all_of(state: Path) -> None:
    """End what is left of a platform: the agent of one that was killed."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(state) in process.cmdline():
                process.kill()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_GPU_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("JUPYTER_GPU_URL", raising=False)
    monkeypatch.setattr(local, "_kept", set())
    yield tmp_path / "state"
    with contextlib.suppress(errors.LocalPlatformError):  # the files that tests spoil
        found = local.find()
        if found is not None and found.pid != os.getpid():
            local.stop()
    end_all_of(tmp_path / "state")


@pytest.fixture
def mine(tmp_path: Path) -> RuntimeFile:
    """A runtime file of a process that lives: this one."""
    return RuntimeFile(
        url="http://127.0.0.1:9",
        token="t",
        host=local.runtime_host(),
        boot_id=runtime.boot_id(),
        pid=os.getpid(),
        pid_start=runtime.process_start(os.getpid()) or 0,
        state_dir=str(tmp_path / "state"),
        version=__version__,
    )


def test_a_live_platform_is_found_and_none_is_started(mine: RuntimeFile) -> None:
    runtime.write_runtime_file(mine)
    assert local.find() == mine
    assert local.ensure() == mine


@pytest.mark.parametrize(
    "change",
    [{"pid": 2**22 + 1}, {"pid_start": 1}, {"boot_id": "another"}, {"host": "another"}],
    ids=["dead pid", "pid used again", "another boot", "another host"],
)
def test_a_file_of_anything_else_is_no_platform(mine: RuntimeFile, change: dict) -> None:
    runtime.write_runtime_file(replace(mine, **change))
    assert local.find() is None


def test_hosts_that_share_a_home_have_a_file_each() -> None:
    assert runtime.runtime_path().name == f"gpu-platform-{local.runtime_host()}.json"


def test_a_file_that_others_can_read_is_refused(mine: RuntimeFile) -> None:
    runtime.write_runtime_file(mine)
    runtime.runtime_path().chmod(0o644)
    with pytest.raises(errors.LocalPlatformError, match="open to other users"):
        connect()


def test_a_link_in_its_place_is_refused(mine: RuntimeFile, tmp_path: Path) -> None:
    runtime.write_runtime_file(mine, tmp_path / "elsewhere")
    runtime.runtime_path().parent.mkdir()
    runtime.runtime_path().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.LocalPlatformError, match="can't be read"):
        connect()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away: run the tests as root")
def test_a_file_of_another_user_is_refused(mine: RuntimeFile) -> None:
    runtime.write_runtime_file(mine)
    os.chown(runtime.runtime_path(), 12345, -1)
    with pytest.raises(errors.LocalPlatformError, match="another user"):
        connect()
    runtime.runtime_path().unlink()


def test_a_newer_form_of_file_asks_for_an_update(mine: RuntimeFile) -> None:
    runtime.write_runtime_file(replace(mine, format=99, version="9.0"))
    with pytest.raises(errors.LocalPlatformError, match=r"newer release 9\.0"):
        connect()


def test_a_newer_program_with_the_same_protocol_is_used(mine: RuntimeFile) -> None:
    runtime.write_runtime_file(replace(mine, version="99.0"))
    assert local.ensure().version == "99.0"


def test_another_state_directory_than_the_running_one_is_refused(
    mine: RuntimeFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime.write_runtime_file(mine)
    monkeypatch.setenv("JUPYTER_GPU_STATE_DIR", str(tmp_path / "other"))
    with pytest.raises(errors.LocalPlatformError, match="keeps its state in"):
        local.ensure()


def test_the_file_system_of_a_path_is_that_of_its_nearest_mount() -> None:
    mounts = r"""22 1 8:1 / / rw - ext4 /dev/a rw
30 22 0:50 / /mnt/my\040home rw shared:1 - nfs4 server:/x rw
31 30 8:2 / /mnt/my\040home/fast rw - xfs /dev/b rw"""
    assert local.file_system(Path("/mnt/my home/ada/state"), mounts) == "nfs4"
    assert local.file_system(Path("/mnt/my home/fast/state"), mounts) == "xfs"
    assert local.file_system(Path("/mnt/my"), mounts) == "ext4"


def test_a_network_file_system_is_refused_by_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = local.file_system(place, Path("/proc/self/mountinfo").read_text())
    # No NFS here: this machine's own kind takes its part.
    monkeypatch.setattr(local, "NETWORK_FILE_SYSTEMS", frozenset({kind}))
    with pytest.raises(errors.LocalPlatformError, match="network file system") as caught:
        local.ensure()
    assert "JUPYTER_GPU_STATE_DIR" in caught.value.hint


def test_a_light_installation_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "NEEDED_MODULES", ("json", "no_such_module"))
    with pytest.raises(errors.LocalPlatformError, match="no_such_module not installed") as caught:
        connect()
    assert "jupyter-gpu-platform[local]" in caught.value.hint
    assert "JUPYTER_GPU_URL" in caught.value.hint


def test_without_permission_to_start_nothing_is_started() -> None:
    with pytest.raises(errors.LocalPlatformError, match="no platform runs"):
        connect(start=False)


def test_a_named_platform_needs_a_token(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.delenv("JUPYTER_GPU_TOKEN", raising=False)
    with pytest.raises(errors.Unauthenticated):
        connect(service.url)
    monkeypatch.setenv("JUPYTER_GPU_TOKEN", "t")
    service.answers = [ok(JOB)]
    with connect(service.url) as client:
        assert client.job("j1") == JOB


def test_a_start_that_fails_shows_the_log(place: Path) -> None:
    with pytest.raises(errors.LocalPlatformError, match="could not be started") as caught:
        local.ensure(options=("--no-such-option=1",))
    assert str(place / "logs" / "control.log") in caught.value.hint
    assert local.find() is None


def test_a_busy_older_program_is_used_with_a_warning(mine: RuntimeFile, service: Service) -> None:
    service.answers = [problem(409, "conflict", detail="some jobs have not ended")]
    runtime.write_runtime_file(replace(mine, version="0.0.1", url=service.url))
    with pytest.warns(UserWarning, match="some jobs have not ended"):
        assert local.ensure().version == "0.0.1"
    assert local.ensure().version == "0.0.1"
    assert len(service.requests) == 1


def test_an_idle_older_program_hands_over(place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OLDER, str(place)], stdout=subprocess.PIPE) as older:
        assert older.stdout is not None
        older.stdout.readline()
        found = local.ensure()
        assert found.version == __version__
        assert older.wait() == 0


def test_it_starts_answers_and_stops_and_a_client_brings_it_back(place: Path) -> None:
    with connect() as client:
        first = local.find()
        assert first is not None
        assert client.status().local
        assert local.stop()
        assert not first.alive
        assert local.find() is None
        assert client.status().local  # started again by the call itself
        second = local.find()
        assert second is not None
        assert second.pid != first.pid
        assert Path(second.state_dir) == place


def test_a_killed_one_is_started_anew() -> None:
    first = local.ensure()
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not first.alive, "its end")
    with connect() as client:
        assert client.status().local


def test_many_starters_start_one() -> None:
    program = "from jupyter_gpu_platform.client import ensure; print(ensure().pid)"
    starters = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(20)]
    assert len({starter.communicate(timeout=100)[0] for starter in starters}) == 1
    assert [starter.returncode for starter in starters] == [0] * 20


def test_a_proxy_of_the_environment_never_sees_the_token(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    service.answers = [ok(JOB)]
    with Client(service.url, "t") as client:
        assert client.job("j1") == JOB
