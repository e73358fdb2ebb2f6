"""Run by `IPython` itself: runs the cells of a file, with a mark behind what each of them showed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from IPython import get_ipython

shell = get_ipython()
shell.run_line_magic("load_ext", "jupyter_gpu_platform")
given = json.loads(Path(sys.argv[1]).read_text())
shell.run_cell(given["remember"], silent=True)
for steps in given["cells"]:
    for code in steps:
        shell.run_cell(code, store_history=True)
    sys.stdout.flush()
    sys.stderr.flush()
    print(given["mark"], flush=True)
    shell.run_cell(given["forget"], silent=True)
