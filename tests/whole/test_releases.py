"""From one release to the next with jobs running, and back; an older agent under a newer service."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Cell, Command, Frontend, Job, JobSpec, Phase, Target

from .conftest import AGENT, Place, eventually
from .releases import Release
from .test_kills import LINES, WRITER, output_digest

CHECKOUT = Path(__file__).parents[2]
#: Stands for *one minor older*: no release has been made yet. Before objects, with the first schema.
OLDER = "1df0bd3"
TOKEN = "an-admin-token-of-a-test-of-releases"


@pytest.fixture(scope="session")
def older_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older release's files."""
    folder = tmp_path_factory.mktemp("older")
    archive = folder / "older.tar"
    command = ["git", "-C", str(CHECKOUT), "archive", f"--output={archive}", OLDER]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no git to take the older release from: apt-get install git")
    if made.returncode:
        pytest.skip(f"commit {OLDER} is not in this checkout: git fetch --unshallow ({made.stderr.strip()})")
    with tarfile.open(archive) as content:
        content.extractall(folder / "code", filter="data")
    # Where it is installed, its executor is found by this.
    metadata = folder / "code" / "older-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: older\nVersion: 0\n")
    executors = tomllib.loads((folder / "code" / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n" + "\n".join(map(" = ".join, found.items())) for group, found in executors.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder / "code"


@pytest.fixture
def older(older_code: Path, place: Place) -> Iterator[Release]:
    release = Release(older_code, place)
    yield release
    release.close()


@pytest.fixture
def newer(place: Place) -> Iterator[Release]:
    release = Release(None, place)
    yield release
    release.close()


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(60) == 0


def half_way(client: Client, folder: Path) -> Job:
    """Start a job that writes much, as a command: of cells this client says what an older service refuses."""
    folder.mkdir()
    code = WRITER.format(folder=str(folder), lines=LINES)
    job = client.submit(JobSpec(source=Command(argv=(sys.executable, "-c", code))))
    eventually((folder / "half").exists, "the job to be half-way")
    return job


def finished(client: Client, job: Job, folder: Path) -> None:
    """Let a job go on and hold its output against what it wrote."""
    (folder / "go").touch()
    assert output_digest(client, job) == (folder / "digest").read_text()
    ended = client.job(job.id)
    assert (ended.phase, ended.attempt) == (Phase.SUCCEEDED, 1)


def echo(client: Client, text: str) -> Job:
    """Run a job that says something.

    It lasts a moment: the older release's supervisor failed where a command's start and end were read at once.
    """
    job = client.submit(JobSpec(source=Command(argv=("sh", "-c", f"echo '{text}'; sleep 0.3"))))
    ended = client.wait(job.id)
    assert ended.phase is Phase.SUCCEEDED, ended.reason
    return job


def said(client: Client, job: Job) -> str:
    return "".join(record["text"] for record in client.follow(job.id) if record["type"] == "stream")


def test_a_running_platform_goes_to_the_next_release_and_back(older: Release, newer: Release, place: Place) -> None:
    first, second = place.root / "first", place.root / "second"
    process, client = older.platform()
    with client:
        ended = echo(client, "from before")
        crossing, returning = half_way(client, first), half_way(client, second)
    # Going back means going back to this: the newer release's program takes it of the older one's running store.
    backup = newer.run(f"--backup={place.root / 'before'}")
    assert backup.returncode == 0, backup.stderr
    end(process)

    process, client = newer.platform()
    with client:
        assert said(client, ended) == "from before\n"
        assert {client.job(job.id).phase for job in (crossing, returning)} == {Phase.RUNNING}
        finished(client, crossing, first)
        assert said(client, echo(client, "from after")) == "from after\n"
    end(process)

    # The older program does not touch what the newer one wrote, and says what to do.
    refused = older.run("--local")
    assert refused.returncode == 1
    assert "the store was written by a newer release" in refused.stderr
    assert "Upgrade jupyter-gpu-platform, or choose another state directory." in refused.stderr
    sound = newer.run("--check")
    assert sound.returncode == 0, sound.stdout + sound.stderr

    place.kill(*AGENT)
    restored = newer.run(f"--restore={place.root / 'before'}")
    assert restored.returncode == 0, restored.stderr
    process, client = older.platform()
    with client:
        assert said(client, ended) == "from before\n"
        assert client.job(returning.id).phase is Phase.RUNNING
        finished(client, returning, second)
        assert said(client, echo(client, "back again")) == "back again\n"
    end(process)


@pytest.fixture
def service(newer: Release, place: Place) -> Callable[[], Client]:
    """Starts this release's service, with no agent of its own."""

    def start() -> Client:
        token = place.root / "token"
        token.write_text(TOKEN)
        options = (f"--state-dir={place.state}", f"--token-file={token}", "--log-format=text")
        newer.start("jupyter_gpu_platform.control", *options)
        log = place.root / "0-jupyter_gpu_platform.control.log"

        def url() -> str | None:
            words = [word for word in log.read_text().split() if word.startswith("http://127.0.0.1:")]
            return words[0] if words else None

        return Client(eventually(url, "the service to listen"), TOKEN)

    return start


def test_an_older_agent_works_with_a_newer_service_and_is_given_only_what_it_understands(
    older: Release, newer: Release, place: Place, service: Callable[[], Client]
) -> None:
    with service() as client:
        (place.root / "join").write_text(str(client.cluster_add("lab")["join_token"]))
        options = (
            f"--state-dir={place.state / 'lab'}",
            f"--join-token-file={place.root / 'join'}",
            f"--url={client.url}",
        )
        agent = older.start("jupyter_gpu_agent", *options)
        eventually(lambda: client.cluster("lab")["state"] == "connected", "the older agent to join")
        assert said(client, echo(client, "hello")) == "hello\n"
        running = half_way(client, place.root / "running")

        # A notebook's cell says more than the older agent understands; it is told what it does.
        frontend = Frontend(parent_header={"msg_id": "m"}, kernel_pid=1)
        cell = client.submit(JobSpec(source=Cell(code="print(6 * 7)", execution_count=4, frontend=frontend)))
        assert client.wait(cell.id, timeout=60).phase is Phase.SUCCEEDED
        assert said(client, cell) == "42\n"

        # The older agent can't bring values back, so such a job waits, and says why; others pass it.
        spec = JobSpec(source=Cell(code="x = 6 * 7", out=("x",)), target=Target(cluster="lab"))
        needs = client.submit(spec)
        assert said(client, echo(client, "passing")) == "passing\n"
        eventually(lambda: (reason := client.job(needs.id).reason) and reason.code == "agent_too_old", "the reason")
        assert client.job(needs.id).attempt == 0

        # Its agent is updated while a job of the older one runs: that goes on, and what waited is placed.
        agent.terminate()
        agent.wait(60)
        agent = newer.start("jupyter_gpu_agent", *options)
        assert client.wait(needs.id, timeout=60).phase is Phase.SUCCEEDED
        finished(client, running, place.root / "running")
        agent.terminate()
        agent.wait(60)
