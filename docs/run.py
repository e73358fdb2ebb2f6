"""Run what the pages show, and compare what comes out with what they say.

    python docs/run.py                       run all pages and say where they differ
    python docs/run.py --write docs/sdk.md   run one page and write its outputs into it

A page is Markdown. Its fenced blocks are run from top to bottom: in a kernel and a shell of the page's own, in a home
directory of its own, against a platform that starts there on demand.

- ``ipython``: a notebook cell. A block ``output`` right below it holds what it puts out.
- ``console``: lines that begin with ``$`` are commands (``> `` goes on with one); what they put out follows each.
- any language with ``file=NAME`` is written to that file.
- ``output``, ``text``, ``json``, ``toml`` and MyST's own ``{directives}`` are not run. Nothing else is allowed.

Behind the language may stand: ``raises`` (the cell fails), ``exit=N`` (the last command does), ``answer=TEXT`` (to
``input()``), ``interrupt-after=TEXT`` (press stop, or Ctrl-C, when TEXT has appeared) and ``not-run: REASON``.
At the top of a page ``<!-- fake-gpus: N -->`` gives its platform N pretended GPUs.

What differs from run to run is compared by the rules of `_VOLATILE`; a line ``…`` stands for any lines; a job's id in
a page stands for the id that the run has in its place. Who writes a page writes ``j000000000000000003`` for the third
id that appears in its outputs; ``--write`` puts the id in its place.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import itertools
import os
import re
import select
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from jupyter_gpu_platform import runtime
from jupyter_gpu_platform.client.sync import Client
from jupyter_gpu_platform.model.jobs import Phase

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples"))

import show  # noqa: E402 - what shows notebooks in a terminal knows how widgets look as text

#: where the pages pretend to be
HOME = "/home/ada"
#: seconds that one block may take
PATIENCE = 60

_FENCE = re.compile(r"^(`{3,})\s*(\S*)[ \t]*(.*)$")
_STATIC = {"output", "text", "json", "toml", ""}
_JOB = re.compile(r"\bj[0-9a-hjkmnp-tv-z]{18}\b")
_CARD = re.compile(rf"^Job {_JOB.pattern}( on \S+)?: (queued|starting|running) .*\n", re.MULTILINE)
_NUMBERED = re.compile(r"\bj0{15}(\d{3})\b")
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

#: what may differ between a page and a run: pattern, what stands for it in both, and why
_VOLATILE = [
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min|m|h)\b( \d+ ?(s|min|m))?"), "TIME", "how long things take"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "CLOCK", "times of day"),
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS", "ports are free ones"),
    (re.compile(r"\b(process|pid) \d+"), "PROCESS", "process ids"),
    (re.compile(r'"pid": \d+'), "PROCESS", "process ids"),
    (re.compile(r"\b\d+\.\d+\.\d+(\.?(dev|a|b|rc)\d+)?\b"), "VERSION", "releases go on"),
    (re.compile(r"\bjgpjoin_[\w…-]+"), "SECRET", "join tokens are random"),
    (re.compile(r"\[\d\d:\d\d<[^\]]*\]"), "[RATE]", "how fast a progress bar went"),
    (re.compile(r"\b0x[0-9a-f]{6,}"), "POINTER", "addresses in memory"),
    (
        re.compile(r"\b\d+(\.\d+)? (GiB|MiB|TiB)\b(?=\s+\d+ × )"),
        "SIZE",
        "memory of the machine in the table of clusters",
    ),
    (re.compile(r"\b\d+(?=  SIZE)"), "CORES", "CPUs of the machine in the table of clusters"),
    (re.compile(r'"(created|started|ended|claimed|time|log_position|cursor)": ("[^"]*"|[\d.]+)'), "MOMENT", "times"),
    (re.compile(r"(?<=sends in all) +[\d.]+ \w+"), " SIZE", "paths of this machine go along"),
    (re.compile(r" {2,}"), "  ", "widths of columns follow what stands in them"),
    (re.compile(r"-{5,}"), "-----", "and so do their rules"),
]


@dataclass
class Block:
    """A fenced block: lines `first` to `last` of its page, fences not counted."""

    language: str
    marks: dict[str, str]
    lines: list[str]
    first: int
    last: int
    #: of a cell: the block with its output, if there is one
    output: Block | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def runs(self) -> bool:
        return self.language in ("ipython", "console") and not {"not-run", "file"} & self.marks.keys()


class Wrong(Exception):
    """A page breaks the rules above, or a block of it failed or differs."""


@dataclass
class Page:
    path: Path
    lines: list[str]
    blocks: list[Block]
    fake_gpus: int = 0

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def runs(self) -> bool:
        return any(block.runs for block in self.blocks)


def pages() -> list[Page]:
    return [read(path) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]


def read(path: Path) -> Page:
    """Read a page.

    :raises Wrong: it has a block that would not be run and doesn't say why.
    """
    lines = path.read_text().split("\n")
    blocks = list(_blocks(path, lines))
    for cell, below in itertools.pairwise(blocks):
        between = "".join(lines[cell.last + 1 : below.first - 1]).strip()
        if cell.language == "ipython" and below.language == "output" and not between:
            cell.output = below
    outputs = {id(block.output) for block in blocks}
    for block in blocks:
        if block.language == "output" and id(block) not in outputs:
            raise Wrong(f"{path}:{block.first}: an output without a cell")
    gpus = re.search(r"<!-- fake-gpus: (\d+) -->", "\n".join(lines[:20]))
    return Page(path, lines, blocks, int(gpus[1]) if gpus else 0)


def _blocks(path: Path, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if not opening:
            continue
        first = number
        while number < len(lines) and lines[number].rstrip() != opening[1]:
            number += 1
        language, marks = opening[2], _marks(opening[3])
        static = language in _STATIC or language.startswith("{") or {"file", "not-run"} & marks.keys()
        if not (static or language in ("ipython", "console")):
            raise Wrong(f"{path}:{first}: {language} is not run: use ipython or console, or say not-run: and why")
        yield Block(language, marks, lines[first:number], first, number)
        number += 1


def _marks(text: str) -> dict[str, str]:
    before, sign, reason = text.partition("not-run:")
    words = (word.partition("=") for word in shlex.split(before))
    marks = {name: value for name, _, value in words}
    if sign:
        if not reason.strip():
            raise Wrong("not-run: needs a reason")
        marks["not-run"] = reason.strip()
    return marks


# --- comparing -------------------------------------------------------------------------------------------------


@dataclass
class Names:
    """Which of the run's job ids stands where the page has another."""

    to_run: dict[str, str] = field(default_factory=dict)
    to_page: dict[str, str] = field(default_factory=dict)
    #: the run's, in the order in which they appeared
    seen: list[str] = field(default_factory=list)

    def learn(self, shown: str, put_out: str) -> None:
        """Pair the ids that neither side has named before, in their order."""
        olds = [name for name in dict.fromkeys(_JOB.findall(shown)) if name not in self.to_run]
        news = [name for name in dict.fromkeys(_JOB.findall(put_out)) if name not in self.to_page]
        for index, new in enumerate(news):
            old = olds[index] if index < len(olds) else new
            self.to_run[old], self.to_page[new] = new, old
        self.seen += news

    def for_page(self, text: str) -> str:
        return _JOB.sub(lambda match: self.to_page.get(match[0], match[0]), text)

    def numbered(self, text: str) -> str:
        """Put the page's ids in the place of numbers."""
        return _NUMBERED.sub(lambda match: self.for_page(self.seen[int(match[1]) - 1]), text)

    def for_run(self, text: str) -> str:
        text = self.numbered(text)
        return _JOB.sub(lambda match: self.to_run.get(match[0], match[0]), text)


def plain(text: str) -> str:
    """Return what a terminal would show of *text* in the end: no colours, no overwritten lines."""
    lines = _STEERING.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines).strip("\n")


def same(shown: str, put_out: str) -> bool:
    """Say whether a page's output is the run's, but for what may differ."""
    wanted, found = _steady(shown), _steady(put_out)
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line + "\n") for line in wanted.split("\n"))
    return re.fullmatch(pattern, found + "\n") is not None


def _steady(text: str) -> str:
    for pattern, stand_in, _ in _VOLATILE:
        text = pattern.sub(stand_in, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


# --- running ---------------------------------------------------------------------------------------------------


class Kernel(NotebookClient):
    """A kernel and a front end that can tell when something new is shown."""

    changed: asyncio.Event

    def output(self, *args: Any) -> Any:
        shown = super().output(*args)
        self.changed.set()
        return shown


class Run:
    """One page being run."""

    def __init__(self, page: Page, root: Path) -> None:
        self.page = page
        self.names = Names()
        self._home = root / "ada"
        self.work = self._home / "work"
        self.work.mkdir(parents=True)
        bin_folder = str(Path(sys.executable).parent)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON", "XDG"))}
        self.env = {
            **kept,
            "HOME": str(self._home),
            "LOGNAME": "ada",
            "PATH": f"{bin_folder}:{os.environ.get('PATH', '')}",
            "COLUMNS": "100",
            "TERM": "dumb",
        }
        #: what stands for paths of this run, in this order
        self._paths = [
            (str(self._home), HOME),
            (sys.executable, f"{HOME}/.venv/bin/python"),
            (sys.prefix, f"{HOME}/.venv"),
            (str(ROOT), f"{HOME}/jupyter-gpu-platform"),
        ]
        self._exit = 0

    def shown(self, text: str) -> str:
        """Return what was put out as a page would show it; without the card, which only slow machines show."""
        text = _CARD.sub("", text)
        for real, stand_in in self._paths:
            text = text.replace(real, stand_in)
        return plain(text)

    def real(self, text: str) -> str:
        """Return a page's code as it is to be run here."""
        return self.names.for_run(text).replace(HOME, str(self._home))

    async def blocks(self) -> AsyncIterator[tuple[Block, list[str]]]:
        """Run the page; yield each block that puts something out, with its lines as they should be."""
        if self.page.fake_gpus:
            await self._command(f"jupyter gpu up --fake-gpus {self.page.fake_gpus}", {})
        async with self._kernel() as kernel:
            for block in self.page.blocks:
                if "file" in block.marks:
                    path = self.work / block.marks["file"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text + "\n")
                elif block.runs and block.language == "ipython":
                    yield block, await self._cell(kernel, block)
                elif block.runs:
                    yield block, await self._console(block)

    @contextlib.asynccontextmanager
    async def _kernel(self) -> AsyncIterator[Kernel | None]:
        if not any(block.runs and block.language == "ipython" for block in self.page.blocks):
            yield None
            return
        client = Kernel(
            nbformat.v4.new_notebook(),
            timeout=PATIENCE,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(self.work)}},
        )
        client.changed = asyncio.Event()
        async with client.async_setup_kernel(env=self.env):
            # nbclient's own default is a front end where nobody answers.
            client.kc.allow_stdin = True
            yield client

    async def _cell(self, kernel: Kernel, block: Block) -> list[str]:
        cell = nbformat.v4.new_code_cell(self.real(block.text))
        kernel.nb.cells.append(cell)
        asked: list[str] = []
        beside = [asyncio.create_task(self._answer(kernel, block.marks.get("answer", ""), asked))]
        if "interrupt-after" in block.marks:
            beside.append(asyncio.create_task(self._interrupt(kernel, cell, block.marks["interrupt-after"])))
        failed = None
        try:
            await kernel.async_execute_cell(cell, len(kernel.nb.cells) - 1)
        except CellExecutionError as error:
            failed = error
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        if (failed is not None) != ("raises" in block.marks):
            raise Wrong(f"{self.page.name}:{block.first}: {failed or 'the cell should have failed and did not'}")
        text = "".join(asked) + "".join(_text(output, kernel.widget_state) for output in cell.outputs)
        return self._lines(text, block.output.text if block.output else "")

    def _lines(self, put_out: str, shown: str) -> list[str]:
        text = self.shown(put_out)
        self.names.learn(shown, text)
        text = self.names.for_page(text)
        return text.split("\n") if text else []

    async def _answer(self, kernel: Kernel, answer: str, asked: list[str]) -> None:
        while True:
            message = await kernel.kc.get_stdin_msg(timeout=None)
            asked.append(f"{message['content']['prompt']}{'·' * 8 if message['content']['password'] else answer}\n")
            kernel.kc.input(answer)

    async def _interrupt(self, kernel: Kernel, cell: Any, text: str) -> None:
        # The whole line: its text and its end may come one after the other.
        while not re.search(f"{re.escape(text)}.*\n", "".join(_text(output, {}) for output in cell.outputs)):
            await kernel.changed.wait()
            kernel.changed.clear()
        await kernel.km.interrupt_kernel()

    async def _console(self, block: Block) -> list[str]:
        lines: list[str] = []
        commands = list(_commands(block))
        for index, (command, shown) in enumerate(commands):
            last = index == len(commands) - 1
            put_out = await self._command(self.real(command), block.marks if last else {})
            wanted = int(block.marks.get("exit", 0)) if last else 0
            if self._exit != wanted:
                said = f"ended with {self._exit}, not {wanted}"
                raise Wrong(f"{self.page.name}:{block.first}: {command}: {said}\n{put_out}")
            lines += [f"{'>' if number else '$'} {line}" for number, line in enumerate(command.split("\n"))]
            lines += self._lines(put_out, shown)
        return lines

    async def _command(self, command: str, marks: dict[str, str]) -> str:
        """Run one command as a shell does that was asked for the last one's exit code just now."""
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            f"(exit {self._exit})\n{command}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.env,
            cwd=self.work,
            start_new_session=True,
        )
        assert process.stdout is not None
        text, stop = "", marks.get("interrupt-after")
        async with asyncio.timeout(PATIENCE):
            while piece := await process.stdout.read(65536):
                text += piece.decode(errors="replace")
                if stop and stop in text:
                    os.killpg(process.pid, signal.SIGINT)
                    stop = None
            self._exit = await process.wait()
        return text

    def close(self) -> None:
        """Stop the page's platform and what runs on it."""
        places = {"XDG_DATA_HOME": str(self._home / ".local" / "share")}
        found = runtime.read_runtime_file(runtime.runtime_dir(places) / runtime.runtime_path().name)
        if found is None or not found.alive:
            return
        process = os.pidfd_open(found.pid)
        with Client(found.url, found.token) as client:
            for job in client.iter_jobs(phases=[Phase.QUEUED, Phase.STARTING, Phase.RUNNING]):
                client.cancel(job.id)
                client.wait(job.id, timeout=PATIENCE)
            client.shutdown()
        select.select([process], [], [], PATIENCE)
        os.close(process)


def _commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with the output that stands below it."""
    command: list[str] = []
    output: list[str] = []
    for line in block.lines:
        if line.startswith("$ "):
            if command:
                yield "\n".join(command), "\n".join(output)
            command, output = [line[2:]], []
        elif line.startswith("> ") and not output:
            command.append(line[2:])
        else:
            output.append(line)
    if command:
        yield "\n".join(command), "\n".join(output)


def _text(output: Any, widgets: dict[str, Any]) -> str:
    """Return what a page shows of one output of a cell."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return "\n".join(output.traceback) + "\n"
    view = output.data.get("application/vnd.jupyter.widget-view+json")
    if view and view["model_id"] in widgets:
        return show.drawn(view["model_id"], widgets) + "\n"
    return str(output.data.get("text/plain", "")) + "\n"


@dataclass
class Result:
    """What became of a page: its text with the run's outputs, and how they differ from it."""

    page: Page
    lines: list[str]
    differences: list[str]

    def write(self) -> None:
        self.page.path.write_text("\n".join(self.lines))


def run(page: Page) -> Result:
    """Run a page.

    :raises Wrong: a block of it failed that should not, or the other way round.
    """
    with tempfile.TemporaryDirectory(prefix="docs-", ignore_cleanup_errors=True) as folder:
        running = Run(page, Path(folder))
        try:
            return asyncio.run(_run(running))
        finally:
            running.close()


async def _run(running: Run) -> Result:
    page, differences = running.page, []
    changes: list[tuple[int, int, list[str]]] = []
    async for block, lines in running.blocks():
        target = block if block.language == "console" else block.output
        shown = target.text if target else ""
        if same(shown, "\n".join(lines)):
            continue
        differences.append(_difference(page, block, shown.split("\n"), lines))
        if target is None:
            changes.append((block.last + 1, block.last + 1, ["```output", *lines, "```"]))
        elif not lines:
            changes.append((target.first - 1, target.last + 1, []))
        else:
            changes.append((target.first, target.last, lines))
    new = list(page.lines)
    for first, last, lines in reversed(changes):
        new[first:last] = lines
    text = running.names.numbered("\n".join(new))
    return Result(page, text.split("\n"), differences)


def _difference(page: Page, block: Block, shown: list[str], lines: list[str]) -> str:
    rows = difflib.unified_diff(shown, lines, f"{page.name}:{block.first} says", "the run puts out", lineterm="", n=2)
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the pages' commands and compare their outputs.")
    parser.add_argument("pages", nargs="*", type=Path, help="such as docs/sdk.md (default: all)")
    parser.add_argument("--write", action="store_true", help="write the outputs into the pages")
    options = parser.parse_args(argv)
    differs = False
    for page in [read(path.resolve()) for path in options.pages] or pages():
        if not page.runs:
            continue
        result = run(page)
        sys.stdout.write("".join(text + "\n" for text in result.differences))
        sys.stdout.write(f"{page.name}: {len(result.differences)} blocks differ\n")
        if options.write and result.lines != page.lines:
            result.write()
        differs = differs or bool(result.differences)
    return 0 if options.write or not differs else 1


if __name__ == "__main__":
    sys.exit(main())
