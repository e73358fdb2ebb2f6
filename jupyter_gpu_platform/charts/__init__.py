"""How a Kubernetes cluster joins: the chart of its agent, and the lines that an admin pastes."""

from __future__ import annotations

import gzip
import hashlib
import io
import shlex
import tarfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

CHART = Path(__file__).parent / "cluster-agent"
MANIFEST = Path(__file__).parent / "manifest.yaml"
#: the folder that Helm looks for in an archive: the chart's own name
NAME = "jupyter-gpu-cluster-agent"
#: what the agent's objects are called in its cluster
RELEASE = "jupyter-gpu-agent"
#: where the control service serves the chart
CHART_PATH = "/api/v1/charts/cluster-agent.tgz"


class Joining(NamedTuple):
    """What an agent is told to join by."""

    #: of the control service's replicas, as the cluster reaches them
    urls: tuple[str, ...]
    token: str
    namespace: str = "jupyter-gpu"
    #: the agent's; empty: the chart's own
    image: str = ""


#: stands in the plain manifest for what differs from cluster to cluster
UNFILLED = Joining(("https://the-url.invalid",), "the-join-token", "the-namespace", "the-agents-image")


def helm_command(joining: Joining, *, again: bool = False) -> str:
    """Return the command that installs the agent, for a shell.

    :param again: it may be there already: it keeps the values that it was given, and gets a new credential.
    """
    verb = "upgrade --install --reset-then-reuse-values" if again else "install"
    words = {"controlUrls": f"{{{','.join(joining.urls)}}}", "joinToken": joining.token, "image": joining.image}
    return " \\\n  ".join(
        [
            f"helm {verb} {RELEASE} {shlex.quote(joining.urls[0] + CHART_PATH)}",
            f"--namespace {shlex.quote(joining.namespace)} --create-namespace",
            *(f"--set {shlex.quote(f'{name}={value}')}" for name, value in words.items() if value),
        ]
    )


def manifest(joining: Joining) -> str:
    """Return what ``kubectl apply -f -`` takes in place of the command: the chart's usual objects, and a namespace."""
    text = MANIFEST.read_text()
    line = f"- --url={UNFILLED.urls[0]}"
    (indented,) = (one for one in text.splitlines() if one.strip() == line)
    text = text.replace(indented, "\n".join(indented.replace(UNFILLED.urls[0], url) for url in joining.urls))
    # The chart's note of which token the pod was started with.
    text = text.replace(_digest(UNFILLED.token), _digest(joining.token))
    filled = Joining(joining.urls, joining.token, joining.namespace, joining.image or own_image())
    for unfilled, value in zip(UNFILLED[1:], filled[1:], strict=True):
        text = text.replace(unfilled, value)
    return text


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def own_image() -> str:
    """Return the image that the chart names itself."""
    lines = (CHART / "Chart.yaml").read_text().splitlines()
    (version,) = (line.partition(": ")[2] for line in lines if line.startswith("appVersion:"))
    return f"jupyter-gpu-platform/cluster-agent:{version}"


@cache
def packed() -> bytes:
    """Return the chart as Helm downloads it; the same files give the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(CHART.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(f"{NAME}/{path.relative_to(CHART)}")
                info.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(info, file)
    return gzip.compress(content.getvalue(), mtime=0)
