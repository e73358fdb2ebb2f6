"""The docs: what they show is what comes out, nothing of it is missing, and the site is made without a warning."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import jupyter_gpu_platform
from jupyter_gpu_platform import errors
from jupyter_gpu_platform.cli.main import COMMANDS
from jupyter_gpu_platform.notebook.verbs import VERBS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_run", DOCS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


docs = _program()
PAGES = {page.name: page for page in docs.pages()}


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """What became of the pages that are asked for, two of which run at a time: kernels and jobs take long to start."""
    here = [
        item for item in request.session.items if isinstance(item, pytest.Function) and "results" in item.fixturenames
    ]
    with ThreadPoolExecutor(2) as pool:
        names = {item.callspec.params["name"] for item in here}
        yield {name: pool.submit(docs.run, page) for name, page in PAGES.items() if name in names}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.runs])
def test_what_a_page_shows_is_what_comes_out(name: str, results: dict[str, Future[Any]]) -> None:
    differences = results[name].result().differences
    assert not differences, "\n".join([*differences, "make docs-outputs writes what comes out"])


def test_the_site_is_made_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "index.html").exists()


# --- nothing is missing ----------------------------------------------------------------------------------------


def headings(page: str) -> set[str]:
    return set(re.findall(r"^#+ `([^`]+)`", (DOCS / page).read_text(), re.MULTILINE))


def sources() -> Iterator[ast.Module]:
    for package in ("jupyter_gpu_platform", "cluster_agent"):
        for path in (ROOT / package).rglob("*.py"):
            yield ast.parse(path.read_text())


#: what is called with a code among its arguments
SAYING = ("Reason", "_reason", "reason", "gap", "CannotPack", "CannotLoad", "Refused", "Unstartable")


def reason_codes() -> set[str]:
    """Codes that jobs wait or end with, that gaps in output have, and that values fail with, found in the source."""
    found: set[str] = set()
    for node in (node for module in sources() for node in ast.walk(module)):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=given) if name in SAYING:
                found |= _codes(*given)
            case ast.keyword(arg="code", value=value) | ast.Assign(targets=[ast.Name(id="code")], value=value):
                found |= _codes(value)
            case ast.arguments():
                positional = node.posonlyargs + node.args
                pairs = [*zip(reversed(positional), reversed(node.defaults), strict=False)]
                pairs += [
                    (word, default) for word, default in zip(node.kwonlyargs, node.kw_defaults, strict=True) if default
                ]
                found |= _codes(*(default for word, default in pairs if word.arg == "code"))
            case ast.Dict():
                pairs = {getattr(key, "value", None): value for key, value in zip(node.keys, node.values, strict=True)}
                if "message" in pairs and "code" in pairs:
                    found |= _codes(pairs["code"])
    return found


def _codes(*values: ast.expr) -> set[str]:
    texts = [each.value for value in values for each in (value, *_branches(value)) if isinstance(each, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", text)}


def _branches(value: ast.expr) -> tuple[ast.expr, ...]:
    return (value.body, value.orelse) if isinstance(value, ast.IfExp) else ()


def error_codes(root: type[errors.GpuPlatformError] = errors.GpuPlatformError) -> set[str]:
    return {root.code}.union(*(error_codes(child) for child in root.__subclasses__()))


def test_the_source_is_read_right() -> None:
    assert {"gpus_busy", "max_run_time", "supervisor_killed", "output_limit", "queue_time"} <= reason_codes()


def test_every_code_is_explained() -> None:
    assert headings("troubleshooting.md") == error_codes() | reason_codes()


def test_every_command_is_shown() -> None:
    assert {f"jupyter gpu {name}" for name in COMMANDS} <= headings("command-line.md")


def test_every_verb_is_shown() -> None:
    assert {f"%gpu {verb}" for verb in VERBS if verb != "help"} <= headings("magics.md")


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "sdk.md").read_text()
    known = set(re.findall(r"^\.\. auto\w+:: jupyter_gpu_platform\.(\w+)$", text, re.MULTILINE))
    assert known == set(jupyter_gpu_platform.__all__) - {"__version__", "load_ipython_extension"}


# --- the rules of the comparison -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "put_out"),
    [
        ("ended after 3 s", "ended after 41 s"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:43121"),
        ("ID   NAME\nab   x", "ID  NAME\nab  x"),
        ("first\n…\nlast", "first\n1\n2\nlast"),
        ("first\n…\nlast", "first\nlast"),
    ],
)
def test_what_may_differ_does_not_count(shown: str, put_out: str) -> None:
    assert docs.same(shown, put_out)


@pytest.mark.parametrize(
    ("shown", "put_out"),
    [
        ("one\ntwo", "one"),
        ("one", "one\ntwo"),
        ("one", "One"),
        ("a b", "a  b"),
        ("exit code 3", "exit code 4"),
        ("first\n…\nlast", "first\nlast\nmore"),
        ("", "something"),
        ("something", ""),
    ],
)
def test_everything_else_counts(shown: str, put_out: str) -> None:
    assert not docs.same(shown, put_out)


def test_a_job_is_the_same_one_throughout_a_page() -> None:
    names = docs.Names()
    names.learn("job j0aaaaaaaaaaaaaaaaa", "job j0bbbbbbbbbbbbbbbbb")
    assert names.for_run("%gpu attach j0aaaaaaaaaaaaaaaaa") == "%gpu attach j0bbbbbbbbbbbbbbbbb"
    assert names.for_page("j0bbbbbbbbbbbbbbbbb ended") == "j0aaaaaaaaaaaaaaaaa ended"
    assert names.for_page("j0ccccccccccccccccc ended") == "j0ccccccccccccccccc ended"


@pytest.mark.parametrize(
    "text",
    ["```python\n1\n```", "```bash\nls\n```", "```console not-run:\n$ ls\n```", "```output\n1\n```"],
    ids=["python", "bash", "no reason", "output alone"],
)
def test_a_page_holds_nothing_that_is_not_run(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(docs.Wrong):
        docs.read(page)


def a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


def test_outputs_are_found_wrong_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "```ipython\nprint(1)\n1 + 1\n```\n```output\n1\n3\n```\n\n```ipython\n'new'\n```\n\n"
    text += "```console\n$ echo hi\nho\n```\n"
    path = a_page(tmp_path, monkeypatch, text)
    first = docs.run(docs.read(path))
    assert len(first.differences) == 3
    first.write()
    right = "```output\n1\n2\n```\n\n```ipython\n'new'\n```\n```output\n'new'\n```\n\n```console\n$ echo hi\nhi\n```\n"
    assert path.read_text() == "```ipython\nprint(1)\n1 + 1\n```\n" + right
    assert docs.run(docs.read(path)).differences == []


@pytest.mark.parametrize(
    "text",
    [
        "```ipython\n1 / 0\n```",
        "```ipython raises\n1 / 1\n```",
        "```console\n$ false\n```",
        "```console exit=3\n$ true\n```",
        "```console\n$ false\n$ true\n```",
    ],
)
def test_a_page_whose_block_fails_otherwise_than_it_says_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with pytest.raises(docs.Wrong):
        docs.run(docs.read(a_page(tmp_path, monkeypatch, text)))


def test_cells_are_answered_and_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "```ipython answer=Ada\ninput('name: ')\n```\n\n"
        "```ipython raises interrupt-after=begun\nimport time\nprint('begun')\ntime.sleep(60)\n```\n"
    )
    result = docs.run(docs.read(a_page(tmp_path, monkeypatch, text)))
    put_out = "\n".join(result.lines)
    assert "name: Ada\n'Ada'" in put_out
    assert "KeyboardInterrupt" in put_out
