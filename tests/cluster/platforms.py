"""A control service and one agent per cluster, as an admin would run them; the agents outside of their clusters."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

from jupyter_gpu_platform.client import Client

from . import images
from .cluster import Cluster
from .control_plane import free_port
from .daemons import Daemon, until

TOKEN = "an-admin-token-of-the-cluster-tests"


class Agent(Daemon):
    """The agent of a cluster; it runs on this machine and listens on the cluster's bridge."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(f"agent-{name}", folder)
        self.cluster_name = name
        self._state = folder / self.name
        self._command: list[str] = []

    def join(self, client: Client, cluster: Cluster, url: str = "", **options: str) -> None:
        """Join the cluster to the platform of *client*, and wait until it is connected.

        :param url: by which the agent reaches the platform; as *client* does, when empty.
        """
        self._state.mkdir(mode=0o700)
        (self._state / "join").write_text(str(client.cluster_add(self.cluster_name)["join_token"]))
        at = f"{cluster.address}:{free_port(cluster.address)}"
        given = {
            "kubeconfig": str(cluster.kubeconfig),
            "link": at,
            "listen": at,
            "image": images.PYTHON,
            "pull_policy": "Never",
            **options,
        }
        self._command = [sys.executable, "-m", "jupyter_gpu_agent", "--executor=kubernetes"]
        self._command += [f"--url={url or client.url}"]
        self._command += [f"--state-dir={self._state}", f"--join-token-file={self._state / 'join'}"]
        self._command += [f"--executor-option={key}={value}" for key, value in given.items()]
        self.run(client)

    def run(self, client: Client) -> None:
        """Start it, here or again."""
        self.start(self._command)
        until(lambda: client.cluster(self.cluster_name)["state"] == "connected", f"the agent of {self.name}", self)


class Platform:
    """A control service, and the agents that were joined to it.

    :param folder: where everything of it lies.
    :param address: where it listens.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.address = address
        self.control = Daemon("control", folder)
        self.agents: dict[str, Agent] = {}
        self.url = ""

    def start(self) -> None:
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        port = free_port(self.address)
        self._control = [sys.executable, "-m", "jupyter_gpu_platform.control", f"--state-dir={self.folder / 'state'}"]
        self._control += [f"--token-file={token}", f"--ip={self.address}", f"--port={port}"]
        self.start_control()

    def start_control(self) -> None:
        """Start the control service, here or again at the same port."""
        self.control.log.write_bytes(b"")
        self.control.start(self._control)
        until(lambda: "listening at" in self.control.log.read_text(), "the control service", self.control)
        found = re.search(r"listening at (http://[\d.:]+)", self.control.log.read_text())
        assert found is not None, "it just said so"
        self.url = found[1]

    def client(self) -> Client:
        return Client(self.url, TOKEN)

    def join(self, cluster: Cluster, name: str, url: str = "", **options: str) -> Agent:
        """Join a cluster under a name, and through a URL of its own where one is given."""
        agent = self.agents[name] = Agent(name, self.folder)
        with self.client() as client:
            agent.join(client, cluster, url, **options)
        return agent

    def stop(self) -> None:
        for daemon in (*self.agents.values(), self.control):
            daemon.stop(signal.SIGTERM)
