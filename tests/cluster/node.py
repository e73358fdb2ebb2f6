"""One node: containerd and a kubelet in process and mount namespaces of their own.

Whatever they start and mount, containers, shims and volumes, is gone with the first process of these namespaces, so
that a node can be taken down by one pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil

from . import binaries
from .control_plane import ControlPlane, free_port
from .daemons import Daemon, until
from .pki import Authority

CGROUPS = Path("/sys/fs/cgroup")
#: what the kubelet sets for the whole machine, put back when the node goes
SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")


class Node:
    """A node of a cluster.

    :param number: from 1; gives its address and its pods' addresses.
    :param bridge: the network that nodes and pods share.
    :param network: its first two numbers, such as ``10.88``.
    """

    def __init__(self, name: str, number: int, folder: Path, plane: ControlPlane, bridge: str, network: str) -> None:
        self.name = name
        self.folder = folder / name
        self.address = f"{network}.0.{number}"
        self._number = number
        self._bridge = bridge
        self._network = network
        self._plane = plane
        self._cgroup = f"jgp-{folder.name}-{name}"
        self.first = Daemon("first-process", self.folder)
        self.containerd = Daemon("containerd", self.folder)
        self.kubelet = Daemon("kubelet", self.folder)

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.folder / "containerd.sock"

    # --- up and down

    def start(self, authority: Authority, programs: Path) -> None:
        """Start it; it registers itself, and is Ready soon."""
        self.folder.mkdir(mode=0o700)
        sysctls = {name: Path("/proc/sys", name).read_text() for name in SYSCTLS}
        (self.folder / "sysctls.json").write_text(json.dumps(sysctls))
        if self._number > 1:
            subprocess.run(["ip", "address", "add", f"{self.address}/16", "dev", self._bridge], check=True)
        kubeconfig = self._plane.write_kubeconfig(
            authority, self.name, f"system:node:{self.name}", groups=["system:nodes"]
        )
        shutil.copy(kubeconfig, self.folder / "kubeconfig")
        self._make_cgroups()
        self._write_settings(authority, programs)
        unshare = [
            "unshare",
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child=KILL",
        ]
        self.first.start([*unshare, binaries.pause()])
        until(self._first_pid, "the node's first process", self.first)
        # What has one fixed place on a machine, each node has for itself.
        for path in ("/run/netns", "/run/containerd", "/var/lib/kubelet"):
            Path(path).mkdir(parents=True, exist_ok=True)
            self._inside("mount", "-t", "tmpfs", "tmpfs", path)
        self.start_containerd()
        self.start_kubelet(programs)

    def start_containerd(self) -> None:
        self.containerd.start([*self._enter(), "containerd", f"--config={self.folder / 'containerd.toml'}"])
        until(lambda: self._ctr("version", check=False) == 0, "containerd", self.containerd)

    def start_kubelet(self, programs: Path) -> None:
        self.kubelet.start(
            [
                *self._enter(),
                programs / "kubelet",
                f"--config={self.folder / 'kubelet.json'}",
                f"--kubeconfig={self.folder / 'kubeconfig'}",
                f"--hostname-override={self.name}",
                f"--node-ip={self.address}",
                f"--root-dir={self.folder / 'kubelet'}",
                f"--cert-dir={self.folder / 'kubelet-pki'}",
            ]
        )

    def kill_kubelet(self) -> None:
        """Kill the kubelet; its containers go on."""
        # `nsenter` stays outside and waits for it.
        process = self.kubelet.process
        for child in process.children() if process else []:
            child.kill()
        self.kubelet.stop()

    def stop(self) -> None:
        """End everything on it at once, as when its power is cut, and leave nothing."""
        self.first.stop()
        for daemon in (self.kubelet, self.containerd):
            daemon.stop()
        self._remove_cgroups()
        with contextlib.suppress(OSError, ValueError):
            for name, value in json.loads((self.folder / "sysctls.json").read_text()).items():
                Path("/proc/sys", name).write_text(value)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self, *words: str) -> list[psutil.Process]:
        """Find processes in this node's containers whose command line holds all of *words*."""
        first = self.first.process
        found = [] if first is None else first.children(recursive=True)
        return [process for process in found if all(word in process.cmdline() for word in words)]

    # --- images

    def load(self, archive: Path) -> None:
        """Bring an image here; nothing is pulled."""
        self._ctr("images", "import", str(archive))

    def _ctr(self, *words: str, check: bool = True) -> int:
        line = ["ctr", f"--address={self.socket}", "--namespace=k8s.io", *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(line)}: {done.stderr}")
        return done.returncode

    # --- namespaces

    def _first_pid(self) -> int:
        process = self.first.process
        children = process.children() if process else []
        return children[0].pid if children else 0

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._first_pid()}", "--mount", "--pid"]

    def _inside(self, *words: str) -> None:
        subprocess.run([*self._enter(), *words], check=True)

    # --- cgroups

    def _controllers(self) -> list[Path]:
        """Where each controller of cgroup v1 is; none where the machine has v2, which needs nothing made by hand."""
        if (CGROUPS / "cgroup.controllers").exists():
            return []
        return [
            path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink() and path.name != "unified"
        ]

    def _make_cgroups(self) -> None:
        for controller in self._controllers():
            group = controller / self._cgroup
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (controller / name).exists():
                    (group / name).write_text((controller / name).read_text())

    def _remove_cgroups(self) -> None:
        for controller in self._controllers():
            group = controller / self._cgroup
            for path in sorted(group.rglob("*"), reverse=True):
                if path.is_dir():
                    _remove(path)
            if group.exists():
                _remove(group)

    # --- settings

    def _write_settings(self, authority: Authority, programs: Path) -> None:
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "pods.conflist").write_text(json.dumps(self._cni()))
        (self.folder / "containerd.toml").write_text(self._containerd())
        (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet(authority)))

    def _cni(self) -> dict[str, object]:
        ipam = {
            "type": "host-local",
            "dataDir": str(self.folder / "addresses"),
            "ranges": [
                [
                    {
                        "subnet": f"{self._network}.0.0/16",
                        "rangeStart": f"{self._network}.{self._number}.1",
                        "rangeEnd": f"{self._network}.{self._number}.250",
                        "gateway": f"{self._network}.0.1",
                    }
                ]
            ],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": self._bridge, "isGateway": False, "ipMasq": False, "ipam": ipam}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}

    def _containerd(self) -> str:
        at = self.folder
        return f"""
version = 2
root = "{at}/containerd"
state = "{at}/containerd-state"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{self.socket}"
[ttrpc]
  address = "{at}/containerd-ttrpc.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{binaries.CNI}"
    conf_dir = "{at}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""

    def _kubelet(self, authority: Authority) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": free_port(self.address),
            "healthzPort": 0,
            "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.certificate)},
            },
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cgroup}" if self._controllers() else "/",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "failCgroupV1": False,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,
            "nodeLeaseDurationSeconds": 8,
            "podLogsDir": str(self.folder / "pod-logs"),
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "maxPods": 200,
            "syncFrequency": "10s",
            "registerNode": True,
        }


def _remove(group: Path) -> None:
    """Remove one cgroup, once those in it are gone."""
    end = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            _kill_all(group)
            time.sleep(0.05)


def _kill_all(group: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in map(int, (group / "cgroup.procs").read_text().split()):
            if pid != os.getpid():
                with contextlib.suppress(psutil.Error):
                    psutil.Process(pid).send_signal(signal.SIGKILL)
