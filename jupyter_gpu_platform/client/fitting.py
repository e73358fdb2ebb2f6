"""Whether a job could ever run on the clusters there are: asked before it queues, so that nobody waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from .. import errors
from ..model import placement
from ..model.jobs import Command, JobSpec
from ..model.resources import Capacity, fits_model
from ..runtime import LOCAL_CLUSTER
from .options import nearest
from .specifying import Options, specify

#: what resources are asked for doesn't depend on what is run
_NOTHING = Command(argv=("true",))

if TYPE_CHECKING:
    from .protocol import Document
    from .sync import Client


def runs_here(client: Client, options: Options, *, local: bool) -> bool:
    """Say whether a job with these options is for this machine.

    On the platform of this machine it is, unless it names another cluster or an image, or asks for GPUs that only
    another cluster has.
    """
    if not local or options.get("cluster") not in (None, LOCAL_CLUSTER) or options.get("image"):
        return False
    if options.get("cluster") or not options.get("gpus"):
        return True
    asked = specify(_NOTHING, here=False, **options).resources
    lacks = {view.name: placement.lack(asked, view) for view in views(client)}
    return lacks.pop(LOCAL_CLUSTER, None) is None or not lacks


def check(client: Client, spec: JobSpec, *, local: bool) -> None:
    """Refuse what could never run.

    :param local: the platform is this machine's own, which doesn't grow; a cluster elsewhere may.
    :raises InvalidRequest: the message says what is missing, the hint what would do.
    """
    if spec.resources.gpus or spec.resources.gpu_model or spec.target.cluster not in (None, LOCAL_CLUSTER):
        documents = client.clusters()
        # One that has only just joined has not said yet what it has.
        if documents and all(document.get("capacity_at") for document in documents):
            _check_clusters(spec, [_view(document) for document in documents], local=local)


def views(client: Client) -> list[placement.ClusterView]:
    """Return the clusters as the planner sees them."""
    return [_view(document) for document in client.clusters()]


def _view(document: Document) -> placement.ClusterView:
    return placement.ClusterView(
        name=document["name"],
        capacity=msgspec.convert(document.get("capacity") or {}, Capacity),
        reachable=document.get("state") == "connected",
        drained=bool(document.get("drained")),
    )


def _check_clusters(spec: JobSpec, clusters: Sequence[placement.ClusterView], *, local: bool) -> None:
    wanted = spec.target.cluster
    by_name = {cluster.name: cluster for cluster in clusters}
    if wanted and wanted not in by_name:
        hint = nearest(wanted, by_name) or f"There are: {', '.join(sorted(by_name)) or 'none yet'}"
        raise errors.InvalidRequest(f"there is no cluster {wanted!r}", hint=hint)
    asked = [by_name[wanted]] if wanted else list(clusters)
    if spec.resources.gpu_model:
        _check_model(spec.resources.gpu_model, asked, clusters)
    lacks = [placement.lack(spec.resources, cluster) for cluster in asked]
    if local and all(lacks):
        said = "; ".join(lack.message for lack in lacks if lack is not None)
        hint = (
            "Ask for less: without --gpus it runs on the CPU."
            " To try things out, `jupyter gpu down` and then `jupyter gpu up --fake-gpus 1` pretends to have one."
        )
        raise errors.InvalidRequest(f"it could never run: {said}", hint=hint)


def _check_model(model: str, asked: Sequence[placement.ClusterView], clusters: Sequence[placement.ClusterView]) -> None:
    """:param asked: those of the clusters on which it may run."""
    if any(fits_model(model, gpu.model) for cluster in asked for gpu in cluster.capacity.gpus):
        return
    models = {gpu.model: cluster.name for cluster in clusters for gpu in cluster.capacity.gpus}
    said = f"there is no GPU of model {model!r}" + (f" on cluster {asked[0].name}" if len(asked) == 1 else "")
    if not models:
        notes = "; ".join(f"{cluster.name}: {cluster.capacity.gpu_note or 'no GPU'}" for cluster in clusters)
        raise errors.InvalidRequest(said, hint=f"No cluster has any GPU ({notes}).")
    there = ", ".join(f"{name} (on {cluster})" for name, cluster in sorted(models.items()))
    raise errors.InvalidRequest(said, hint=f"{nearest(model, models)} There are: {there}".strip())
