"""The line behind ``%%gpu_run`` and ``%gpu_run``: its options, its help, and what it comes to."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast

from .. import errors
from ..client.options import JOB_OPTIONS, add_job_options, job_options, nearest, size
from ..client.specifying import Options
from .interrupting import OnInterrupt

_HEAD = """Run this cell as a job, on a GPU, and show its output here as if the cell had run here.

    %%gpu_run [options]            the cell below
    %gpu_run [options] script.py [arguments]
    %gpu_run [options] -- command [arguments]

With nothing set up the job runs on this machine, with this kernel's own Python and working directory; the platform
for that starts by itself. Names of this notebook that the cell uses go along. Names that it assigns stay where it
ran, but for those of --out.

Examples
    %%gpu_run --gpus 1
    import torch
    torch.cuda.get_device_name()

    %%gpu_run --gpus 2 --gpu-model A100 --max-run-time 2h --out model,losses
    model, losses = train(data)          # `data` and `train` go there, `model` and `losses` come back

    %gpu_run --gpus 1 --name training train.py --epochs 3
    %gpu_run --gpus 1 -- nvidia-smi

    %%gpu_run --gpus 1 --detach
    train(data)                          # close the laptop; later, in any kernel:  %gpu attach ID

    %gpu config gpus=1 gpu_model=A100    # from here on, in this notebook
    %%gpu_run --dry-run                  # what would go where; runs nothing

The cell
"""

_TAIL = """
Defaults: `%gpu config gpus=1` for this notebook, `c.GpuMagics.gpus = 1` in ipython_config.py for all of them.
`%gpu?` is about jobs that run, or ran.
"""

_IN = "these names go there, instead of those that the cell uses"
_SOURCE = "send code and plain data (numbers, text, lists, dicts) only: works between any two Pythons"
_DETACH = "don't wait: return the job (.status() .wait() .result() .output() .logs() .attach() .cancel())"
_ON_INTERRUPT = (
    "what the stop button does. cancel (default): the first press raises KeyboardInterrupt in the job's code, the"
    " second cancels the job. detach: stop waiting, the job goes on"
)


class Line(NamedTuple):
    """What a line asks for, with the defaults in it."""

    job: Options
    #: a script with its arguments, or a command; empty for a cell
    words: tuple[str, ...] = ()
    #: the words stood behind ``--``: a command
    command: bool = False
    detach: bool = False
    on_interrupt: OnInterrupt = "cancel"
    #: names that go to the job; None: those that the cell uses
    take: tuple[str, ...] | None = None
    #: names that come back
    out: tuple[str, ...] = ()
    #: send code and plain data only, no pickles
    source: bool = False
    #: bytes that may go along; None: as configured
    capture_limit: int | None = None
    dry_run: bool = False
    help: bool = False


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise errors.InvalidRequest(f"%%gpu_run: {message}", hint="%%gpu_run? shows the options, with examples.")


def names(text: str) -> tuple[str, ...]:
    """Read ``a,b``; ``none`` is no name at all."""
    if text == "none":
        return ()
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found or not all(name.isidentifier() for name in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names: write a,b (no spaces) or none")
    return found


def _parser() -> tuple[_Parser, argparse._ArgumentGroup]:
    """Make the parser, and the group of the options that are the magic's own."""
    parser = _Parser(
        prog="%%gpu_run",
        add_help=False,
        allow_abbrev=False,
        usage=argparse.SUPPRESS,
        # What is not given is absent, so that defaults and presets show through.
        argument_default=argparse.SUPPRESS,
    )
    cell = parser.add_argument_group()
    option = cell.add_argument
    option("--in", dest="take", type=names, metavar="A,B|none", help=_IN)
    option("--out", type=names, metavar="A,B", help="these names come back when the cell has ended")
    option("--source", action="store_true", help=_SOURCE)
    option("--capture-limit", type=size, metavar="SIZE", help="send at most so much (default: 512MiB)")
    option("--detach", action="store_true", help=_DETACH)
    option("--on-interrupt", choices=("cancel", "detach"), help=_ON_INTERRUPT)
    option("--preset", metavar="NAME", help="options that stand in the configuration under this name")
    option("--dry-run", action="store_true", help="show what would be sent and where it fits; run nothing")
    option("--help", "-h", action="store_true", help="show this")
    return parser, cell


def parser() -> argparse.ArgumentParser:
    """Return the parser of all options of a line."""
    found, _ = _parser()
    add_job_options(found.add_argument_group())
    return found


def help_text() -> str:
    """Return the help: what it is for, examples, each option."""
    found, cell = _parser()
    job = found.add_argument_group()
    add_job_options(job)
    return _HEAD + _described(cell) + "\nThe job\n" + _described(job) + _TAIL


def _described(group: argparse._ArgumentGroup) -> str:
    formatter = argparse.HelpFormatter("", max_help_position=24, width=116)
    formatter.start_section(None)
    formatter.add_arguments(group._group_actions)
    formatter.end_section()
    return formatter.format_help()


def parse(
    line: str, *, cell: bool = True, defaults: Mapping[str, Any] | None = None, presets: Mapping[str, str] | None = None
) -> Line:
    """Read a line.

    :param cell: there is a cell below it: no script or command may stand in it.
    :param defaults: options by name, for what the line and its preset don't say.
    :param presets: lines of options by name.
    :raises InvalidRequest: with the nearest option where one is unknown.
    """
    options, words, command = _read(line, cell=cell)
    chosen: dict[str, Any] = {}
    if (preset := options.pop("preset", None)) is not None:
        chosen = _preset(preset, presets or {})
    given = _merged(dict(defaults or {}), chosen, options)
    own = {name: given[name] for name in Line._fields if name in given}
    return Line(job=job_options(given), words=words, command=command, **own)


def _preset(name: str, presets: Mapping[str, str]) -> dict[str, Any]:
    if name not in presets:
        known = ", ".join(sorted(presets)) or "none: set c.GpuMagics.presets in ipython_config.py"
        hint = nearest(name, presets) or f"There are: {known}"
        raise errors.InvalidRequest(f"%%gpu_run: there is no preset {name!r}", hint=hint)
    options, _, _ = _read(presets[name], cell=True)
    options.pop("preset", None)
    return options


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Lay options over each other; pairs such as variables are gathered from all of them."""
    found: dict[str, Any] = {}
    for layer in layers:
        for option in JOB_OPTIONS:
            if option.repeated and option.name in layer:
                layer = {**layer, option.name: {**found.get(option.name, {}), **dict(layer[option.name])}}
        found |= layer
    return found


def _read(line: str, *, cell: bool) -> tuple[dict[str, Any], tuple[str, ...], bool]:
    """Read a line as it stands; return its options, and the words of a script or command."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise errors.InvalidRequest(f"%%gpu_run: {error} in: {line}", hint="Close the quotation.") from None
    found = parser()
    cut = end_of_options(words, found._actions)
    options, unknown = found.parse_known_args(words[:cut])
    rest = words[cut:]
    if unknown:
        raise _unknown(unknown[0], flags(found))
    if rest and cell:
        hint = "The code goes below the line that says %%gpu_run; options begin with two dashes."
        raise errors.InvalidRequest(f"%%gpu_run does not understand {shlex.join(rest)}", hint=hint)
    command = rest[:1] == ["--"]
    return vars(options), tuple(rest[1:] if command else rest), command


def end_of_options(words: Sequence[str], actions: Iterable[argparse.Action]) -> int:
    """Return where the first word is that neither is an option nor the value of one."""
    takes = {flag for action in actions if action.nargs != 0 for flag in action.option_strings}
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] != "--":
        position += 2 if words[position] in takes else 1
    return min(position, len(words))


def flags(found: argparse.ArgumentParser) -> list[str]:
    """Return the parser's options, the long forms."""
    return [flag for action in found._actions for flag in action.option_strings if flag.startswith("--")]


def _unknown(word: str, known: list[str]) -> errors.InvalidRequest:
    hint = nearest(word.partition("=")[0], known)
    return errors.InvalidRequest(
        f"%%gpu_run has no option {word}", hint=f"{hint} %%gpu_run? shows all options.".strip()
    )


def read_setting(name: str, text: object) -> object:
    """Read the value of the option *name* as the line would.

    :raises InvalidRequest: it can't have that value.
    """
    option = next(option for option in JOB_OPTIONS if option.name == name)
    try:
        if not option.repeated:
            return option.read(str(text))
        if isinstance(text, Mapping):
            return {str(key): str(value) for key, value in cast(Mapping[object, object], text).items()}
        return dict(option.read(part) for part in shlex.split(str(text)))
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise errors.InvalidRequest(f"{name}: {error}", hint=f"{option.flag} {option.metavar}: {option.help}") from None
