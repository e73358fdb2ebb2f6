"""Defaults of the magics: from IPython's configuration, and per notebook with ``%gpu config``."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, Enum, Int, TraitError, TraitType, Unicode
from traitlets.config import Configurable

from .. import errors
from ..client.options import JOB_OPTIONS, nearest
from ..model import units
from . import options
from .capture import DEFAULT_LIMIT
from .returning import DEFAULT_EAGER

_BY_NAME = {option.name: option for option in JOB_OPTIONS}


class Setting(TraitType[Any, Any]):
    """The default of one option of a job: a value, or text as it would stand on the line; None leaves it unset."""

    def __init__(self, name: str) -> None:
        option = _BY_NAME[name]
        help_ = f"Default of {option.flag} {option.metavar}: {option.help}"
        super().__init__(None, allow_none=True, help=help_)
        self._option = name
        self.tag(config=True)

    def validate(self, obj: Any, value: Any) -> Any:
        try:
            return options.read_setting(self._option, value)
        except errors.InvalidRequest as error:
            raise TraitError(str(error)) from None


class Size(TraitType[Any, Any]):
    """Bytes: a number, or text such as ``512MiB``."""

    def validate(self, obj: Any, value: Any) -> Any:
        try:
            return units.parse_size(str(value))
        except errors.InvalidRequest as error:
            raise TraitError(str(error)) from None


class GpuMagics(Configurable):
    """Defaults of %%gpu_run and %gpu_run. What a line says goes before its preset, and that before these."""

    gpus = Setting("gpus")
    gpu_model = Setting("gpu_model")
    gpu_memory = Setting("gpu_memory")
    cpus = Setting("cpus")
    memory = Setting("memory")
    cluster = Setting("cluster")
    image = Setting("image")
    python = Setting("python")
    workdir = Setting("workdir")
    project = Setting("project")
    labels = Setting("labels")
    env = Setting("env")
    max_run_time = Setting("max_run_time")
    max_queue_time = Setting("max_queue_time")
    max_output = Setting("max_output")
    retries = Setting("retries")
    priority = Setting("priority")
    on_interrupt = Enum(
        ("cancel", "detach"),
        "cancel",
        help="What the stop button does (default: cancel). cancel: interrupt the job's code, then cancel the job."
        " detach: stop waiting; the job goes on, and holds its GPUs.",
    ).tag(config=True)
    capture_limit = Size(
        DEFAULT_LIMIT,
        help="Bytes of values that a cell may send (default: 512MiB). Above it the cell is refused, with the names"
        " and their sizes, before anything is sent.",
    ).tag(config=True)
    eager_limit = Size(
        DEFAULT_EAGER,
        help="Bytes of values that are loaded when a cell has ended (default: 64MiB). Above it a name becomes a"
        " handle whose .get() loads it.",
    ).tag(config=True)
    completion_ms = Int(
        250,
        help="Milliseconds that Tab may wait for clusters, GPU models and jobs (default: 250). What comes later is"
        " offered at the next Tab; 0 never asks the service.",
    ).tag(config=True)
    presets = Dict(
        Unicode(),
        help="Lines of options by name, for --preset: {'big': '--gpus 8 --gpu-model H100 --max-run-time 1d'}.",
    ).tag(config=True)

    def defaults(self) -> dict[str, Any]:
        """Return what is set, by the names that `options.parse` knows."""
        found = {name: getattr(self, name) for name in _BY_NAME if name != "name"}
        return {name: value for name, value in found.items() if value is not None} | {"on_interrupt": self.on_interrupt}

    def named(self, text: str) -> str:
        """Return the setting that *text* names, as the option on a line or as here.

        :raises InvalidRequest: there is none; the hint names the nearest.
        """
        name = text.strip().lstrip("-").replace("-", "_")
        names = self.traits(config=True)
        if name not in names:
            hint = nearest(name, names) or f"There are: {', '.join(sorted(names))}"
            raise errors.InvalidRequest(f"there is no setting {name!r}", hint=hint)
        return name

    def set(self, text: str, value: str) -> str:
        """Set the one that *text* names, for this notebook, and return its name; an empty value is its default again.

        :raises InvalidRequest: there is none of that name, or it can't have that value.
        """
        name = self.named(text)
        trait = self.traits()[name]
        if isinstance(trait, Dict):
            hint = "Set it whole: %config GpuMagics.presets = {'big': '--gpus 8'}"
            raise errors.InvalidRequest(f"{name} is not set by %gpu config", hint=hint)
        try:
            new = int(value) if value and isinstance(trait, Int) else value
            setattr(self, name, new if value else trait.default(self))
        except (TraitError, ValueError) as error:
            raise errors.InvalidRequest(str(error), hint=str(trait.help)) from None
        return name

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and meaning of each setting."""
        return [
            (name, _shown(name, getattr(self, name)), str(trait.help))
            for name, trait in self.traits(config=True).items()
        ]


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in ("memory", "gpu_memory", "max_output", "capture_limit", "eager_limit") and isinstance(value, int):
        return units.format_size(value)
    if name in ("max_run_time", "max_queue_time") and isinstance(value, (int, float)):
        return units.format_duration(value)
    if isinstance(value, dict):
        return " ".join(f"{key}={entry}" for key, entry in value.items())
    return str(value)
