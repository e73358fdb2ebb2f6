"""Another Python process that values go to and come back from."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_gpu_platform.runner.values import Packer, Unpacked


class Far:
    """The process `far_side.py`; each request gets a fresh namespace there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        script = str(Path(__file__).with_name("far_side.py"))
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, packer: Packer | None, code: str, out: tuple[str, ...] = (), encoding: str = "pickle"
    ) -> tuple[dict[str, Any], Path]:
        """Run *code* there with the packed values; give the answer and the file of what was packed."""
        number = next(self._numbers)
        sent, back = self._folder / f"{number}.sent", self._folder / f"{number}.back"
        if packer is not None:
            packer.write(sent)
        request = {
            "path": str(sent) if packer is not None else "",
            "code": code,
            "out": out,
            "back": str(back),
            "encoding": encoding,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline()), back

    def trip(
        self, here: dict[str, Any], names: str, code: str, out: str = "", encoding: str = "pickle"
    ) -> tuple[str, dict[str, Any]]:
        """Send *names* of *here*, run *code* there, bring *out* back; gives what it printed, and the values."""
        packer = Packer(here, limit=2**30, encoding=encoding)
        for name in names.split():
            packer.add(name, here[name])
        done: set[str] = set(names.split())
        while left := packer.needed - done:
            for name in sorted(left):
                packer.add(name, here[name])
            done |= left
        answer, back = self.run(packer, code, tuple(out.split()), encoding)
        assert not answer["error"], answer["error"]
        return answer["stdout"], Unpacked(back, here).load()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="session")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    far = Far(tmp_path_factory.mktemp("far"))
    yield far
    far.close()


def run_here(code: str) -> dict[str, Any]:
    """Run *code* as a notebook would; gives its namespace."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<cell>", "exec"), namespace)
    return namespace


@pytest.fixture
def notebook() -> Any:
    """A function that runs code as a notebook would, and gives its namespace."""
    return run_here
