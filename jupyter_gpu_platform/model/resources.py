"""What a job asks for and what a cluster has. Sizes are bytes, CPUs are cores."""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=4096)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
Cores = Annotated[float, msgspec.Meta(ge=0, le=65536)]
#: A GPU model as people write it ("A100", "H100 SXM"); matched by word, without regard to case.
ModelName = Annotated[str, msgspec.Meta(max_length=100)]


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one replica of a job needs."""

    #: whole GPUs
    gpus: Count = 0
    #: any model when absent
    gpu_model: ModelName | None = None
    #: least memory of each GPU, bytes
    gpu_memory: Bytes | None = None
    #: cores; not reserved when absent
    cpus: Cores | None = None
    #: main memory, bytes; not reserved when absent
    memory: Bytes | None = None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as its agent sees it."""

    index: int
    uuid: str
    model: str
    #: bytes
    memory: int
    #: who uses it besides our own attempts, in words ("pid 4242 (python), user ada"); empty when nobody does
    busy_by: str = ""
    #: simulated by ``--fake-gpus``: no such hardware exists
    fake: bool = False
    #: the machine it is in, where a cluster has several: one replica's GPUs are all in one
    node: str = ""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster has in all; what our own attempts hold is counted from the store, never from here."""

    gpus: tuple[Gpu, ...] = ()
    cpus: float = 0.0
    #: bytes
    memory: int = 0
    #: why there are no GPUs, in words; empty when there are some
    gpu_note: str = ""


def fits_model(wanted: str | None, model: str) -> bool:
    """Say whether a GPU of *model* satisfies a request for *wanted*: each word of it occurs in the model's name."""
    if not wanted:
        return True
    have = model.lower()
    return all(word in have for word in wanted.lower().replace("-", " ").split())


def fits_gpu(request: Resources, gpu: Gpu) -> bool:
    """Say whether *gpu* is of the model and size that *request* names, busy or not."""
    return fits_model(request.gpu_model, gpu.model) and gpu.memory >= (request.gpu_memory or 0)
