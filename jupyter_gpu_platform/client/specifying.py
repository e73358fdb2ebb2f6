"""From options as people give them to a `JobSpec`: one place for the magics, the SDK and the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, Unpack

from ..model import units
from ..model.jobs import DEFAULT_OUTPUT_BYTES, Environment, JobSpec, Limits, Source, Target
from ..model.resources import Resources
from ..runtime import LOCAL_CLUSTER


class Options(TypedDict, total=False):
    """How a job is to be run. Whatever is left out has its default."""

    #: whole GPUs
    gpus: int
    #: such as ``A100``; any when absent
    gpu_model: str | None
    #: least memory of each GPU: bytes, or text such as ``40GiB``
    gpu_memory: int | str | None
    #: cores to reserve
    cpus: float | None
    #: main memory to reserve: bytes, or text such as ``16GiB``
    memory: int | str | None
    #: what the job is called in lists
    name: str
    #: where to run it; anywhere when absent
    cluster: str | None
    #: container image; clusters only
    image: str | None
    #: the interpreter; on this machine this one by default
    python: str | None
    #: working directory; on this machine this one by default
    workdir: str | None
    #: environment variables
    env: Mapping[str, str]
    labels: Mapping[str, str]
    project: str
    #: after which a running attempt is ended: seconds, or text such as ``2h30m``
    max_run_time: float | str | None
    #: after which a waiting job fails: seconds, or text such as ``1d``
    max_queue_time: float | str | None
    #: output that is kept: bytes, or text such as ``1GiB``
    max_output: int | str
    #: how often a failed attempt is tried again
    retries: int
    #: the higher goes first
    priority: int


def specify(source: Source, *, here: bool, **options: Unpack[Options]) -> JobSpec:
    """Make a job's spec.

    :param here: it is to run on this machine, see `fitting.runs_here`: with this interpreter and in this directory
        unless told otherwise. Elsewhere paths of this machine mean nothing.
    :raises InvalidRequest: a size or a duration can't be read.
    """
    return JobSpec(
        source=source,
        name=options.get("name") or "",
        resources=Resources(
            gpus=options.get("gpus") or 0,
            gpu_model=options.get("gpu_model"),
            gpu_memory=_bytes(options.get("gpu_memory")),
            cpus=options.get("cpus"),
            memory=_bytes(options.get("memory")),
        ),
        environment=Environment(
            image=options.get("image"),
            python=_program(options.get("python") or sys.executable) if here else options.get("python"),
            workdir=str(Path(options.get("workdir") or ".").expanduser().absolute())
            if here
            else options.get("workdir"),
        ),
        env=dict(options.get("env") or {}),
        target=Target(cluster=LOCAL_CLUSTER if here else options.get("cluster")),
        limits=Limits(
            max_run_seconds=_seconds(options.get("max_run_time")),
            max_queue_seconds=_seconds(options.get("max_queue_time")),
            max_output_bytes=_bytes(options.get("max_output")) or DEFAULT_OUTPUT_BYTES,
        ),
        retries=options.get("retries") or 0,
        priority=options.get("priority") or 0,
        labels=dict(options.get("labels") or {}),
        project=options.get("project") or "default",
    )


def _bytes(given: int | str | None) -> int | None:
    return units.parse_size(given) if isinstance(given, str) else given


def _seconds(given: float | str | None) -> float | None:
    return units.parse_duration(given) if isinstance(given, str) else given


def _program(name: str) -> str:
    """Return a path of this machine as it is meant here; a bare name is looked up on the PATH where the job runs."""
    return _absolute(name) if "/" in name else name


def _absolute(path: str) -> str:
    # Not resolved: the interpreter of a virtual environment is a link to another one.
    return str(Path(path).expanduser().absolute())
