"""In plain IPython a job's output is the text that the cell would have shown there."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .cells import CELLS
from .kernels import FORGET, REMEMBER
from .transcripts import text_differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MARK = "=== the cell's end ==="
TERMINAL = {name: cell for name, cell in CELLS.items() if cell.terminal}


@pytest.fixture(scope="module")
def shown(platform_env, tmp_path_factory) -> dict[str, tuple[str, str]]:
    """What two IPython programs show for each cell: here as it is, there under the magic."""
    home = tmp_path_factory.mktemp("terminal")

    def run(there: bool) -> list[str]:
        directory = home / ("there" if there else "here")
        directory.mkdir()
        cells = [[cell.before, cell.there if there else cell.here, cell.after] for cell in TERMINAL.values()]
        given = {"cells": [list(filter(None, steps)) for steps in cells], "mark": MARK}
        (directory / "cells.json").write_text(json.dumps({**given, "remember": REMEMBER, "forget": FORGET}))
        argv = [
            sys.executable,
            "-u",
            "-m",
            "IPython",
            "--no-banner",
            "--colors=Linux",
            "--HistoryManager.enabled=False",
        ]
        argv += [str(Path(__file__).with_name("terminal.py")), "cells.json"]
        done = subprocess.run(
            argv, cwd=directory, env=platform_env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=250, check=True,
        )  # fmt: skip
        return done.stdout.replace(str(directory), "<directory>").split(MARK + "\n")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        here, there = pool.map(run, (False, True))
    assert len(here) == len(there) == len(TERMINAL) + 1
    return dict(zip(TERMINAL, zip(here, there, strict=True), strict=False))


@pytest.mark.parametrize("name", TERMINAL)
def test_a_cell_shows_the_same_text(name, shown):
    found = text_differences(*shown[name], TERMINAL[name].marks)
    assert not found, "\n".join(found)
