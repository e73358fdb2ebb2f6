"""``python -m tests.cluster up|down``: a Kubernetes cluster to play with."""

from __future__ import annotations

import argparse
import contextlib
import sys

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.charts import MANIFEST
from jupyter_gpu_platform.client import connect

from . import binaries, images
from .cluster import Cluster
from .manifest import rendered_manifest
from .platforms import Agent

VERBS = "build: only make what a cluster needs; manifest: render the chart's plain manifest anew"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "build", "manifest"), help=VERBS)
    parser.add_argument("--name", default="dev", help="clusters of several names run side by side (default: dev)")
    parser.add_argument("--nodes", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--gpus", type=int, default=8, help="that each node seems to have (default: 8)")
    parser.add_argument("--join", action="store_true", help="join it to the platform that the command line uses")
    args = parser.parse_args()
    if why := binaries.missing():
        print(f"no cluster can run here: {why}", file=sys.stderr)
        return 0 if args.verb == "build" else 1  # tests without one say so themselves
    if args.verb == "build":
        build()
        return 0
    if args.verb == "manifest":
        MANIFEST.write_text(rendered_manifest(binaries.find()))
        return 0
    cluster = Cluster(args.name)
    agent = Agent(args.name, cluster.folder)
    if args.verb == "down":
        agent.stop()
        cluster.down()
        return 0
    print(f"→ starting a Kubernetes cluster of {args.nodes} node(s) with {args.gpus} GPUs each that only seem to exist")
    cluster.up(nodes=args.nodes, gpus=args.gpus)
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    if args.join:
        join(cluster, agent)
        print(f"joined as {args.name}; try:  jupyter gpu run --cluster {args.name} --gpus 1 -- nvidia-smi")
        print(f"take it down with:  python -m tests.cluster down --name {args.name}")
    return 0


def build() -> None:
    """Make all that clusters are made of; what is there already stays."""
    binaries.find()
    images.pause()
    images.python()
    images.agent()


def join(cluster: Cluster, agent: Agent) -> None:
    with connect() as client:
        with contextlib.suppress(errors.NotFound):
            client.cluster_remove(agent.cluster_name)  # an earlier one of this name
        agent.join(client, cluster)


if __name__ == "__main__":
    sys.exit(main())
