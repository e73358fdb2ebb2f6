"""What type checkers see: a remote function keeps its parameters and its value's type."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TYPED = """
from typing import Any, assert_type
import jupyter_gpu_platform as gpu

@gpu.remote
def halved(x: int, *, name: str = "") -> float:
    return x / 2

@gpu.remote(gpus=1, labels={"kind": "typed"})
async def named(x: int) -> str:
    return str(x)

async def use() -> None:
    assert_type(halved(1, name="a"), float)
    assert_type(halved.local(1), float)
    assert_type(halved.submit(1), gpu.Job[float])
    assert_type(halved.submit(1).result(timeout=1.5), float)
    assert_type(list(halved.options(gpus=2).map([1])), list[float])
    assert_type(await halved.acall(1), float)
    assert_type(await named.submit(1), str)
    async for value in named.amap([1]):
        assert_type(value, str)
    assert_type(gpu.run("true", cpus=0.5).status().exit_code, int | None)
    assert_type(gpu.attach("j"), gpu.Job[Any])
    with gpu.connect("https://gpu.example.org", "token") as connection:
        assert_type(connection, gpu.Connection)
"""

MISTAKES = {
    'halved("a")': "arg-type",
    "halved()": "call-arg",
    "halved.submit(y=1)": "call-arg",
    "halved.options(gpuz=2)": "call-arg",
    'gpu.run("true", gpus="two")': "arg-type",
}


@pytest.mark.slow
def test_remote_functions_keep_their_types(tmp_path: Path):
    path = tmp_path / "typed.py"
    path.write_text(TYPED + "\n".join(MISTAKES) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    found = [line for line in done.stdout.splitlines() if ": error:" in line and path.name in line]
    first = TYPED.count("\n") + 1
    expected = [f":{number}: error:" for number in range(first, first + len(MISTAKES))]
    assert len(found) == len(MISTAKES), done.stdout
    for line, place, kind in zip(found, expected, MISTAKES.values(), strict=True):
        assert place in line
        assert f"[{kind}]" in line
