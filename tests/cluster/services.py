"""What kube-proxy does elsewhere: a Service has an address that leads to its pods. Without netfilter, by hand."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cluster import Cluster

Address = tuple[str, int]


class ServiceProxy:
    """Takes connections at Services' addresses, which lie on the cluster's bridge, and passes them on."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._listening: list[socket.socket] = []

    def serve_api(self) -> None:
        """Serve the address at which pods look for the API server."""
        api = self._cluster.plane.url.rpartition("/")[2].rsplit(":", 1)
        self._serve((self._cluster.plane.api_service, 443), lambda: (api[0], int(api[1])))

    def serve(self, namespace: str, name: str) -> None:
        """Serve a Service's address, as long as the cluster is there."""
        spec = json.loads(self._cluster.kubectl("get", "service", "-n", namespace, name, "-o", "json"))["spec"]
        for port in spec["ports"]:
            self._serve((spec["clusterIP"], port["port"]), lambda port=port: self._pod(namespace, name, port["name"]))  # type: ignore[misc]  # bound now

    def _pod(self, namespace: str, name: str, port: str) -> Address:
        selector = f"kubernetes.io/service-name={name}"
        listed = json.loads(
            self._cluster.kubectl("get", "endpointslices", "-n", namespace, "-l", selector, "-o", "json")
        )
        for found in listed["items"]:
            ports = [one["port"] for one in found["ports"] or () if one["name"] == port]
            ready = [one["addresses"][0] for one in found["endpoints"] or () if one["conditions"].get("ready")]
            if ports and ready:
                return ready[0], ports[0]
        raise ConnectionRefusedError(f"{name} has no pod")

    def _serve(self, at: Address, find: Callable[[], Address]) -> None:
        device = ["dev", self._cluster.bridge]
        subprocess.run(["ip", "address", "replace", f"{at[0]}/32", *device], check=True)
        server = socket.create_server(at)
        self._listening.append(server)
        threading.Thread(target=_accept, args=(server, find), daemon=True, name=f"service {at[0]}").start()

    def close(self) -> None:
        for server in self._listening:
            # Wakes the thread that accepts.
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()


def _accept(server: socket.socket, find: Callable[[], Address]) -> None:
    found: list[Address] = []
    while True:
        try:
            near, _ = server.accept()
        except OSError:
            return  # closed
        threading.Thread(target=_pass_on, args=(near, lambda: _connected(find, found)), daemon=True).start()


def _connected(find: Callable[[], Address], found: list[Address]) -> socket.socket:
    """Connect to where it was found before, or is now: to ask takes long.

    :raises OSError: there is nothing now.
    """
    if found:
        try:
            return socket.create_connection(found[0], 2)
        except OSError:
            found.clear()
    at = find()
    made = socket.create_connection(at, 2)
    found[:] = [at]
    return made


def _pass_on(near: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Pass bytes both ways until either side has ended."""
    # Its pod, or the API server, may be away.
    with near, contextlib.suppress(OSError, RuntimeError), connect() as far:
        far.settimeout(None)
        with selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]  # a socket
                    if not data:
                        return
                    key.data.sendall(data)
