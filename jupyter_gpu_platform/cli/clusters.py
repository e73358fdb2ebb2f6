"""``jupyter gpu clusters``: where jobs can run, and what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .. import errors
from ..client.options import nearest
from ..client.protocol import Document
from ..model.units import format_size
from . import tables
from .arguments import Parser
from .connecting import connect


def parser() -> Parser:
    made = Parser(
        "clusters",
        "List the clusters and their GPUs; of those that are named, each GPU and who uses it besides the platform's "
        "own jobs.",
        examples="""
            jupyter gpu clusters
            jupyter gpu clusters local
            jupyter gpu clusters --json | jq '[.items[].capacity.gpus[].model] | unique'
        """,
    )
    made.add_argument("clusters", metavar="NAME", nargs="*", help="only these, and each of their GPUs")
    made.json_option("them")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    with connect() as client:
        known = {cluster["name"]: cluster for cluster in client.clusters()}
    for name in args.clusters:
        if name not in known:
            hint = nearest(name, known) or "See jupyter gpu clusters"
            raise errors.NotFound(f"there is no cluster {name!r}", hint=hint)
    found = [known[name] for name in args.clusters] or list(known.values())
    if args.json:
        tables.write_json({"items": found})
        return 0
    print(clusters_table(found) if found else "No clusters.")
    if args.clusters:
        rows = [row for cluster in found for row in _gpus(cluster)]
        if rows:
            print("\n" + tables.table(("CLUSTER", "GPU", "MODEL", "MEMORY", "USED BY OTHERS"), rows))
    return 0


def clusters_table(clusters: Sequence[Document]) -> str:
    return tables.table(("CLUSTER", "STATE", "CPUS", "MEMORY", "GPUS"), [_cluster(one) for one in clusters])


def _cluster(cluster: Document) -> tuple[str, ...]:
    capacity = cluster.get("capacity") or {}
    models = Counter(gpu["model"] for gpu in capacity.get("gpus", ()))
    gpus = ", ".join(f"{count} × {model}" for model, count in models.items()) or capacity.get("gpu_note") or "none"
    memory = format_size(capacity["memory"]) if capacity.get("memory") else ""
    state = "closed for new jobs" if cluster.get("drained") else str(cluster.get("state", ""))
    return (cluster["name"], state, f"{capacity.get('cpus', 0):g}", memory, gpus)


def _gpus(cluster: Document) -> list[tuple[str, ...]]:
    return [
        (cluster["name"], str(gpu["index"]), gpu["model"], format_size(gpu["memory"]), gpu.get("busy_by") or "-")
        for gpu in (cluster.get("capacity") or {}).get("gpus", ())
    ]
