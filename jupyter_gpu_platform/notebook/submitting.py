"""From a cell or a line to a submitted job: what goes along, whether it can fit at all, and its upload."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import errors
from ..client import describing, fitting
from ..client.options import nearest
from ..client.specifying import Options, specify
from ..model.jobs import Cell, Command, Frontend, Job, JobSpec, Script, Source
from ..model.placement import ClusterView, lack
from ..model.units import format_duration, format_size
from ..runtime import LOCAL_CLUSTER
from .options import Line
from .tables import Table

if TYPE_CHECKING:
    from ..client import Client
    from .capture import Capture

#: an image's name that says its Python: ``python:3.12-slim``, ``torch-py311``, ``base:python-3.11``
_IMAGE_PYTHON = re.compile(r"(?:^|[^a-z])py(?:thon)?[:-]?3\.?(\d{1,2})(?!\d)")
#: seconds that another interpreter may take to say its version
_PATIENCE = 10.0


class Work(NamedTuple):
    """What is to be submitted."""

    source: Source
    options: Options
    captured: Capture | None = None

    def missed(self, name: str, namespace: Container[str]) -> str:
        """Say why a name that the code didn't find is not there although it is here; empty where that is not it."""
        if self.captured is None or name in self.captured.sent or name not in namespace:
            return ""
        why = f" ({self.captured.left_out[name]})" if name in self.captured.left_out else ""
        return (
            f"`{name}` exists in this notebook but did not go along{why}: name it in the cell's code,"
            " or name all that the cell needs with --in"
        )


def cell(
    namespace: dict[str, Any], line: Line, code: str, *, count: int, hidden: Mapping[str, Any], frontend: Frontend,
    limit: int,
) -> Work:  # fmt: skip
    """Gather what a cell needs.

    :param namespace: the notebook's names.
    :param count: the cell's number.
    :param hidden: names of the shell's own, with their values.
    :param limit: bytes that may go along.
    :raises InvalidRequest: something of it can't be sent; the message names it.
    """
    # Imported here: loading the extension stays quick.
    from .capture import capture

    encoding: Literal["json", "pickle"] = "json" if line.source else "pickle"
    captured = capture(namespace, code, only=line.take, limit=limit, encoding=encoding, hidden=hidden)
    source = Cell(
        code=code,
        execution_count=count,
        values=captured.ref,
        out=line.out,
        encoding=encoding,
        frontend=frontend,
    )
    return Work(source, line.job, captured)


def words(line: Line) -> Work:
    """Make a job of the script or command on the line."""
    if line.out or line.take is not None:
        raise errors.InvalidRequest("%gpu_run: --in and --out are a cell's", hint="Put the code into a %%gpu_run cell.")
    if not line.command:
        return Work(Script(path=line.words[0], args=line.words[1:]), line.job)
    return Work(Command(argv=line.words), line.job)


def submit(client: Client, work: Work) -> Job:
    """Submit, having uploaded what the service doesn't have yet.

    :raises InvalidRequest: it could never run.
    """
    local = client.status().local
    spec = _spec(client, work, local=local)
    check(client, spec, work.captured, local=local)
    try:
        return client.submit(spec)
    except errors.ObjectMissing:
        upload(client, work)
        return client.submit(spec)


def _spec(client: Client, work: Work, *, local: bool) -> JobSpec:
    return specify(work.source, here=fitting.runs_here(client, work.options, local=local), **work.options)


def upload(client: Client, work: Work) -> None:
    """Bring the values where the job finds them."""
    captured = work.captured
    if captured is not None and captured.ref is not None:
        client.put_object(captured.ref.digest, captured.ref.size, captured.chunks)


def check(client: Client, spec: JobSpec, captured: Capture | None, *, local: bool) -> None:
    """Refuse what could never run, before it queues.

    :raises InvalidRequest: the message says what is wrong, the hint what would do.
    """
    here = local and spec.target.cluster == LOCAL_CLUSTER
    if isinstance(spec.source, Script) and here:
        _check_script(spec.source, Path(spec.environment.workdir or "."))
    if captured is not None and captured.python_needed:
        _check_python(spec, here=here)
    fitting.check(client, spec, local=local)


def _check_script(script: Script, workdir: Path) -> None:
    path = workdir / Path(script.path).expanduser()
    if path.is_file():
        return
    near = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
    command = f"A command stands behind two dashes: %gpu_run -- {' '.join((script.path, *script.args))}"
    raise errors.InvalidRequest(f"there is no script {script.path} in {workdir}", hint=near or command)


def _check_python(spec: JobSpec, *, here: bool) -> None:
    """Refuse to send pickles to another minor release of Python, where that can be known beforehand."""
    own = sys.version_info[:2]
    image, python = spec.environment.image, spec.environment.python
    if here and python and python != sys.executable:
        there, what = _version(python), python
    elif image and (match := _IMAGE_PYTHON.search(image.lower())):
        there, what = (3, int(match[1])), f"image {image}"
    else:
        return
    if there != own:
        raise errors.InvalidRequest(
            f"{what} has Python {there[0]}.{there[1]}, this kernel {own[0]}.{own[1]}:"
            " the cell's functions and objects can't be read there",
            hint=f"Use one with Python {own[0]}.{own[1]}, or --source to send code and plain data only,"
            " or --in none to send nothing.",
        )


def _version(python: str) -> tuple[int, int]:
    """Ask an interpreter for its version."""
    ask = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=_PATIENCE, check=True)
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise errors.InvalidRequest(
            f"{python} is no Python that runs here: {error}", hint="Give --python the path of an interpreter."
        ) from None


def preview(client: Client, work: Work) -> Table:
    """Say what a submission would send, and where it would run; nothing is submitted.

    :raises InvalidRequest: it could never run.
    """
    local = client.status().local
    spec = _spec(client, work, local=local)
    check(client, spec, work.captured, local=local)
    rows = [("runs", _source(spec.source))]
    rows += _sent(work.captured) if work.captured is not None else []
    rows += [("brings back", ", ".join(work.source.out))] if isinstance(work.source, Cell) and work.source.out else []
    rows += [(name, text) for name, text in _asked(spec) if text]
    for view in fitting.views(client):
        if spec.target.cluster in (None, view.name):
            rows.append((f"cluster {view.name}", _fit(spec, view)))
    return Table(("dry run", "what"), rows)


def _sent(captured: Capture) -> list[tuple[str, str]]:
    rows = [("sends", line) for line in captured.lines()]
    rows += [("sends in all", format_size(captured.ref.size))] if captured.ref else []
    rows += [("leaves out", f"{name}: {why}") for name, why in captured.left_out.items()]
    return rows + [("exists nowhere", name) for name in captured.missing]


def _source(source: Source) -> str:
    if isinstance(source, Cell):
        lines = len(source.code.strip().splitlines())
        return f"this cell ({lines} line{'s' * (lines != 1)})"
    return describing.source(source)


def _asked(spec: JobSpec) -> list[tuple[str, str]]:
    resources, environment, limits = spec.resources, spec.environment, spec.limits
    return [
        ("name", spec.name),
        ("gpus", f"{resources.gpus} {resources.gpu_model or ''}".strip()),
        ("gpu memory", format_size(resources.gpu_memory) if resources.gpu_memory else ""),
        ("cpus", f"{resources.cpus:g}" if resources.cpus else ""),
        ("memory", format_size(resources.memory) if resources.memory else ""),
        ("image", environment.image or ""),
        ("python", environment.python or ""),
        ("workdir", environment.workdir or ""),
        # Names only: what a variable holds may be a secret, and this stays in the notebook.
        ("env", ", ".join(spec.env)),
        ("labels", ", ".join(f"{key}={text}" for key, text in spec.labels.items())),
        ("project", spec.project),
        ("may run for", format_duration(limits.max_run_seconds) if limits.max_run_seconds else ""),
        ("may wait for", format_duration(limits.max_queue_seconds) if limits.max_queue_seconds else ""),
        ("retries", str(spec.retries or "")),
        ("priority", str(spec.priority or "")),
    ]


def _fit(spec: JobSpec, view: ClusterView) -> str:
    if (lacking := lack(spec.resources, view)) is not None:
        return f"doesn't fit: {lacking.message}"
    if view.drained:
        return "fits, but is closed for new jobs by its admin"
    return "fits" if view.reachable else "fits, but is not connected"
