"""A whole cluster: one control plane and its nodes on a bridge of their own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import binaries, images
from .control_plane import ControlPlane
from .daemons import until
from .node import Node
from .pki import Authority

#: Below /tmp: containerd's socket needs a short path, and its layers a file system that overlays can lie on.
ROOT = Path("/tmp/jgp-clusters")
#: networks that clusters choose from, each ``N.0.0/16``
NETWORKS = [f"10.{number}" for number in range(88, 96)]


class Cluster:
    """Kubernetes on this machine.

    :param name: short; a cluster of this name that a dead process left is taken down first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = ROOT / name
        self.nodes: list[Node] = []
        self._settings = self.folder / "settings.json"
        if self._settings.exists():
            self._read()

    def _read(self) -> None:
        settings = json.loads(self._settings.read_text())
        self.network: str = settings["network"]
        self.bridge: str = settings["bridge"]
        self.programs = binaries.find()
        self.plane = ControlPlane(self.folder, self.programs, f"{self.network}.0.1")
        self.nodes = [self._node(number) for number in range(1, settings["nodes"] + 1)]

    def _node(self, number: int) -> Node:
        return Node(f"node{number}", number, self.folder, self.plane, self.bridge, self.network)

    @property
    def kubeconfig(self) -> Path:
        """What an admin uses."""
        return self.plane.kubeconfig

    @property
    def address(self) -> str:
        """This machine's address as pods see it."""
        return f"{self.network}.0.1"

    # --- up and down

    def up(self, *, nodes: int = 1, gpus: int = 8) -> None:
        """Start it and wait until its nodes are Ready."""
        archives = [images.pause(), images.python(), images.agent()]
        self.down()
        ROOT.mkdir(mode=0o711, exist_ok=True)
        self.folder.mkdir(mode=0o711)
        with _networks():
            self.network = _free_network()
            self.bridge = f"jgp{self.network.rpartition('.')[2]}"
            subprocess.run(["ip", "link", "add", self.bridge, "type", "bridge"], check=True)
            self._settings.write_text(json.dumps({"network": self.network, "bridge": self.bridge, "nodes": nodes}))
        subprocess.run(["ip", "address", "add", f"{self.address}/16", "dev", self.bridge], check=True)
        subprocess.run(["ip", "link", "set", self.bridge, "up"], check=True)
        self._read()
        authority = Authority(self.folder / "pki")
        self.plane.start(authority)
        for node in self.nodes:
            node.start(authority, self.programs)
            for archive in archives:
                node.load(archive)
        for node in self.nodes:
            self.offers_gpus(node, gpus)
        until(lambda: self.kubectl("get", "serviceaccount", "default", check=False), "the default service account")

    def down(self) -> None:
        """Take it down and leave nothing of it."""
        if not self._settings.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        self._read()
        for node in self.nodes:
            node.stop()
        self.plane.stop()
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- speaking to it

    def kubectl(self, *words: str, check: bool = True, given: str | None = None) -> str:
        """Run kubectl as admin; returns what it printed, nothing where it failed and *check* is false."""
        line = [str(self.programs / "kubectl"), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(line, capture_output=True, text=True, input=given, check=False)
        if done.returncode and check:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr}")
        return "" if done.returncode else done.stdout

    def offers_gpus(self, node: Node, count: int = 8) -> None:
        """Wait until a node is Ready, whose kubelet has just started, and have it offer GPUs."""
        until(lambda: self._ready(node), f"{node.name} Ready", node.kubelet)
        if count:
            self._set_gpus(node, count)

    def _set_gpus(self, node: Node, count: int) -> None:
        """Have a node offer GPUs that it hasn't got, as a device plugin would."""
        patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(count)}]
        self.kubectl("patch", "node", node.name, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")
        self.kubectl("label", "--overwrite", "node", node.name, "nvidia.com/gpu.product=Fake-GPU-80GB")
        at = "jsonpath={.status.allocatable.nvidia\\.com/gpu}"
        until(lambda: self.kubectl("get", "node", node.name, "-o", at) == str(count), "the GPUs to be offered")

    def _ready(self, node: Node) -> bool:
        at = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return self.kubectl("get", "node", node.name, "-o", at, check=False) == "True"


@contextlib.contextmanager
def _networks() -> Iterator[None]:
    """Hold the choice of networks, so that two clusters that start never take the same."""
    with (ROOT / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _free_network() -> str:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    addresses = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
    for network in NETWORKS:
        if f" jgp{network.rpartition('.')[2]}:" not in links and f" {network}." not in addresses:
            return network
    raise RuntimeError(f"no network is free for a cluster; `ip link` shows those taken, of {NETWORKS}")


def left_behind() -> list[Cluster]:
    """Clusters of test runs that are no more; a run's are named ``t<pid>-…``."""
    if not ROOT.exists():
        return []
    found = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name.startswith("t")]
    dead = [name for name in found if not Path("/proc", name[1:].partition("-")[0]).exists()]
    return [Cluster(name) for name in dead]


def own_name(suffix: str = "") -> str:
    return f"t{os.getpid()}{suffix}"
