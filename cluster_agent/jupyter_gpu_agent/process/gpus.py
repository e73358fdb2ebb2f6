"""The machine's GPUs, by NVML, or simulated ones where somebody asked for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import psutil

from jupyter_gpu_platform.model.resources import Capacity, Gpu

FAKE_MODEL = "Fake GPU (simulated)"
#: bytes that a simulated GPU pretends to have
FAKE_MEMORY = 16 * 2**30


class Inventory(NamedTuple):
    gpus: tuple[Gpu, ...]
    #: why there are none; empty when there are some
    note: str


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """Open NVML for one look; it is a reference count, and holding it would pin the driver."""
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def describe_process(pid: int) -> str:
    """Name a process in words: ``pid 4242 (python), user ada``."""
    try:
        process = psutil.Process(pid)
        return f"pid {pid} ({process.name()}), user {process.username()}"
    except psutil.Error:
        return f"pid {pid}"


def _users(nvml: Any, handle: Any) -> set[int]:
    """List the processes on one GPU; what the driver won't tell (in some containers) counts as nobody."""
    found: set[int] = set()
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with contextlib.suppress(nvml.NVMLError):
            found |= {process.pid for process in ask(handle)}
    return found


def read(ours: Callable[[], Collection[int]]) -> Inventory:
    """Look at the machine's GPUs.

    :param ours: gives the processes of our own attempts; their use of a GPU is not reported as somebody else's.
    """
    try:
        import pynvml
    except ImportError:
        return Inventory((), "this machine has no NVIDIA GPU (the package nvidia-ml-py is not installed)")
    try:
        with _nvml() as nvml:
            own = set(ours())
            return _list(nvml, own)
    except pynvml.NVMLError_LibraryNotFound:
        return Inventory((), "this machine has no NVIDIA GPU (no NVML library)")
    except pynvml.NVMLError as error:
        return Inventory((), f"the NVIDIA driver does not answer: {error}")


def _list(nvml: Any, own: set[int]) -> Inventory:
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        others = sorted(_users(nvml, handle) - own)
        gpus.append(
            Gpu(
                index=index,
                uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
                model=_text(nvml.nvmlDeviceGetName(handle)),
                memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                busy_by="; ".join(map(describe_process, others[:4])),
            )
        )
    return Inventory(tuple(gpus), "" if gpus else "this machine has no NVIDIA GPU")


def simulate(count: int) -> Inventory:
    """Make up GPUs, each saying that it is made up."""
    gpus = tuple(
        Gpu(index=index, uuid=f"GPU-fake-{index}", model=FAKE_MODEL, memory=FAKE_MEMORY, fake=True)
        for index in range(count)
    )
    return Inventory(gpus, "")


def capacity(fake: int, ours: Callable[[], Collection[int]]) -> Capacity:
    """Say what the machine has: GPUs (*fake* simulated ones instead, where that is not 0), cores and memory."""
    inventory = simulate(fake) if fake else read(ours)
    return Capacity(
        gpus=inventory.gpus,
        gpu_note=inventory.note,
        cpus=float(len(os.sched_getaffinity(0))),
        memory=psutil.virtual_memory().total,
    )
