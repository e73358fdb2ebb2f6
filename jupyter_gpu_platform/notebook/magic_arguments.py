"""What Python code stands in the arguments of IPython's magics: ``%timeit f(x)``, ``!echo $x {y}``, ``x?``.

IPython rewrites these into calls of its shell (``get_ipython().run_line_magic("timeit", "f(x)")``); this module reads
the strings of those calls. Where IPython is missing, a plain reading of the lines makes the same calls.
"""

from __future__ import annotations

import ast
import getopt
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

#: Options (as getopt writes them) of magics whose argument or body is Python that runs in the notebook's namespace.
PYTHON_MAGICS = {
    "time": "",
    "timeit": "n:r:tcp:qov:",
    "prun": "D:l:rs:T:q",
    "memit": "r:t:i:coh",
    "capture": "",
    "mprun": "f:m:T:rc",
    "lprun": "f:m:D:T:su:rz",
    "scalene": "",
    "pyinstrument": "",
}
#: … of which these run it in a function of its own, so that it assigns nothing.
PRIVATE = {"timeit", "memit"}
#: Magics that look at one name.
NAME_MAGICS = {"pinfo", "pinfo2", "pdef", "pdoc", "psource", "pfile", "psearch"}
#: Cell magics whose body is a program of another language, or a text.
OTHER_LANGUAGES = {
    *("bash", "sh", "script", "system", "sx", "!", "python", "python2", "python3", "pypy", "perl", "ruby", "cmd"),
    *("html", "HTML", "svg", "SVG", "javascript", "js", "latex", "markdown", "writefile", "file", "cython", "R", "sql"),
}


@dataclass(frozen=True)
class Fragment:
    """A piece of Python in a magic's argument."""

    code: str
    #: ``run``: in the namespace; ``private``: it assigns nothing; ``maybe``: it may not be Python at all;
    #: ``write``: a name that the magic assigns
    how: Literal["run", "private", "maybe", "write"]


def fragments(method: str, arguments: list[str]) -> Iterator[Fragment]:
    """Give the Python in a call of the shell's *method* with constant strings."""
    match method, arguments:
        case "run_line_magic", [magic, line, *_]:
            yield from _line_magic(magic, line)
        case "run_cell_magic", [magic, line, body, *_]:
            yield from _cell_magic(magic, line, body)
        case (("system" | "getoutput" | "getoutput_pexpect" | "system_raw" | "system_piped"), [command, *_]):
            yield from expansions(command)
        case (("run_cell" | "ex" | "ev"), [code, *_]):
            yield Fragment(code, "run")
        case _:
            return


def _line_magic(magic: str, line: str) -> Iterator[Fragment]:
    if magic in NAME_MAGICS:
        found = re.match(r"\s*([^\W\d]\w*)", line)
        if found:
            yield Fragment(found[1], "private")
    elif magic in PYTHON_MAGICS:
        yield Fragment(_without_options(line, PYTHON_MAGICS[magic]), "private" if magic in PRIVATE else "run")
    else:
        yield from expansions(line)


def _cell_magic(magic: str, line: str, body: str) -> Iterator[Fragment]:
    if magic in PRIVATE:
        # The line is setup code, run first and in the same function.
        yield Fragment(_without_options(line, PYTHON_MAGICS[magic]) + "\n" + body, "private")
        return
    yield from expansions(line)
    if magic in PYTHON_MAGICS:
        yield Fragment(body, "run")
    elif magic not in OTHER_LANGUAGES:
        yield Fragment(body, "maybe")
    if magic == "capture":
        yield from (Fragment(name, "write") for name in line.split()[:1] if name.isidentifier())
    for name in re.findall(r"--(?:out|err|proc)[ =]([^\W\d]\w*)", line):
        yield Fragment(name, "write")


def _without_options(line: str, options: str) -> str:
    """Give the statement after the magic's options."""
    words = re.findall(r"\S+", line)
    try:
        _, rest = getopt.getopt(words, options)
    except getopt.GetoptError:
        return line
    skipped = len(words) - len(rest)
    return line.split(maxsplit=skipped)[-1] if rest else ""


def expansions(text: str) -> Iterator[Fragment]:
    """Give the expressions that IPython puts values of into *text*: ``{x + 1}``, ``$name.attribute``."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:  # IPython leaves such a line as it is
        return
    for literal, field, form, _ in parts:
        for name in re.findall(r"(?<!\$)\$([^\W\d][\w.]*)", literal):
            yield Fragment(name.rstrip("."), "private")
        if field:
            # The format may hold fields itself, and a slice's colon is no format: both readings are tried.
            yield Fragment(field, "maybe")
            if form:
                yield Fragment(f"{field}:{form}", "maybe")
                yield from expansions(form)


# -- cells into plain Python


@cache
def _ipython() -> Callable[[str], str] | None:
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ModuleNotFoundError:
        return None
    transform: Callable[[str], str] = TransformerManager().transform_cell  # type: ignore[no-untyped-call, unused-ignore] # IPython has no types
    return transform


def to_python(cell: str) -> str:
    """Rewrite a cell's magics into calls, as IPython does."""
    transform = _ipython() or plainly
    try:
        return transform(cell if cell.endswith("\n") else cell + "\n")
    except SyntaxError:
        return cell


_ASSIGNED = re.compile(r"^(\s*)([\w.\[\]'\", *()]+?)\s*=\s*([!%])(\S.*)$")
_HELP = re.compile(r"^(\s*)(?:\?{1,2}\s*([\w.*]+)|(%{0,2}[\w.*]+)\?{1,2})\s*$")
_MAGIC = re.compile(r"^(\s*)([!%])(\S.*)$")


def plainly(cell: str) -> str:
    """Rewrite a cell's magics without IPython: whole lines only, strings over several lines left aside."""
    try:
        ast.parse(cell)
    except SyntaxError:
        pass
    else:
        return cell
    found = re.match(r"\s*%%(\S+)[ \t]*(.*)\n?([\s\S]*)", cell)
    if found:
        return f"get_ipython().run_cell_magic({found[1]!r}, {found[2]!r}, {found[3]!r})\n"
    return "\n".join(_line(line) for line in cell.split("\n"))


def _line(line: str) -> str:
    if found := _HELP.match(line):
        return f"{found[1]}get_ipython().run_line_magic('pinfo', {found[2] or found[3]!r})"
    if found := _ASSIGNED.match(line):
        return f"{found[1]}{found[2]} = {_call(found[3], found[4], 'getoutput')}"
    if found := _MAGIC.match(line):
        return found[1] + _call(found[2], found[3], "system")
    return line


def _call(sign: str, text: str, shell: str) -> str:
    if sign == "!":
        return f"get_ipython().{shell}({text.lstrip('!')!r})"
    magic, _, rest = text.partition(" ")
    return f"get_ipython().run_line_magic({magic!r}, {rest!r})"
