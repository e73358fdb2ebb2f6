"""etcd, API server, controllers and scheduler of one cluster."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from .daemons import Daemon, until
from .pki import Authority


def free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


class ControlPlane:
    """Everything of a cluster that is no node.

    :param address: of the bridge, at which pods reach the API server.
    """

    def __init__(self, folder: Path, programs: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self._programs = programs
        self.etcd = Daemon("etcd", folder)
        self.api = Daemon("kube-apiserver", folder)
        self.controllers = Daemon("kube-controller-manager", folder)
        self.scheduler = Daemon("kube-scheduler", folder)
        self.kubeconfig = folder / "admin.kubeconfig"
        self._ports_file = folder / "ports.json"
        network = address.rpartition(".")[0].rpartition(".")[0]
        #: the addresses that Services get: on the bridge, where nothing else has them
        self._services = f"{network}.240.0/20"
        #: the first of them, at which pods look for the API server
        self.api_service = f"{network}.240.1"

    # --- up and down

    def start(self, authority: Authority) -> None:
        """Start all four, and wait until the API server is ready."""
        ports = [free_port("127.0.0.1"), free_port("127.0.0.1"), free_port(self.address)]
        self._ports_file.write_text(json.dumps(ports))
        pki = self._pki
        authority.sign("api", "kube-apiserver", hosts=[self.address, self.api_service])
        self.write_kubeconfig(authority, "admin", "admin", groups=["system:masters"])
        for name in ("controller-manager", "scheduler"):
            self.write_kubeconfig(authority, name, f"system:kube-{name}")
        (pki / "etcd").mkdir(mode=0o700)
        self.start_etcd()
        self.start_api()
        self.start_controllers()
        self._start("scheduler", self.scheduler)

    def stop(self) -> None:
        for daemon in (self.scheduler, self.controllers, self.api, self.etcd):
            daemon.stop()

    def start_etcd(self) -> None:
        at, between = self.etcd_url, f"http://127.0.0.1:{self._ports[1]}"
        self.etcd.start(
            [
                "etcd",
                f"--data-dir={self._pki / 'etcd'}",
                f"--listen-client-urls={at}",
                f"--advertise-client-urls={at}",
                f"--listen-peer-urls={between}",
                f"--initial-advertise-peer-urls={between}",
                f"--initial-cluster=default={between}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ]
        )

    def start_api(self) -> None:
        """Start the API server, here or again."""
        pki, port = self._pki, self._ports[2]
        self.api.start(
            [
                self._programs / "kube-apiserver",
                f"--etcd-servers={self.etcd_url}",
                f"--bind-address={self.address}",
                f"--secure-port={port}",
                f"--advertise-address={self.address}",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                "--kubelet-preferred-address-types=InternalIP",
                f"--service-cluster-ip-range={self._services}",
                f"--client-ca-file={pki / 'ca.crt'}",
                f"--tls-cert-file={pki / 'api.crt'}",
                f"--tls-private-key-file={pki / 'api.key'}",
                f"--kubelet-client-certificate={pki / 'admin.crt'}",
                f"--kubelet-client-key={pki / 'admin.key'}",
                f"--service-account-key-file={pki / 'service-accounts.key'}",
                f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--default-not-ready-toleration-seconds=3",
                "--default-unreachable-toleration-seconds=3",
            ]
        )
        until(self._ready, "the API server", self.api)

    def start_controllers(self) -> None:
        pki = self._pki
        self._start(
            "controller-manager",
            self.controllers,
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--service-account-private-key-file={pki / 'service-accounts.key'}",
            "--use-service-account-credentials=true",
            "--node-monitor-grace-period=8s",
            "--node-monitor-period=1s",
        )

    def _start(self, name: str, daemon: Daemon, *options: str) -> None:
        config = self.folder / f"{name}.kubeconfig"
        line: list[str | Path] = [
            self._programs / daemon.name,
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
        ]
        line += [f"--authorization-kubeconfig={config}", "--leader-elect=false", "--bind-address=127.0.0.1"]
        daemon.start([*line, f"--secure-port={free_port('127.0.0.1')}", *options])

    # --- who may speak to it

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self._ports[2]}"

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    def write_kubeconfig(self, authority: Authority, name: str, common: str, *, groups: Sequence[str] = ()) -> Path:
        """Make a client's certificate and what tells it where the API server is."""
        certificate, key = authority.sign(name, common, groups=groups)
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(authority.certificate)}
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))
        return path

    @property
    def _pki(self) -> Path:
        return self.folder / "pki"

    @property
    def _ports(self) -> tuple[int, int, int]:
        etcd, peer, api = json.loads(self._ports_file.read_text())
        return etcd, peer, api

    def _ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", context=context, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
