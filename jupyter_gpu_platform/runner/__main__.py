"""Makes the package of this folder importable by a fixed name, wherever the folder lies, and runs one of its parts."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

NAME = "jupyter_gpu_runner"
#: what can be run, and the module whose it is
PARTS = {"supervise": "launching", "pod": "pod", "worker": "worker"}


def _register() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    # The folder's modules must not shadow what user code imports by the same names.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != folder or entry == ""]
    spec = importlib.util.spec_from_file_location(
        NAME, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.stderr.write("usage: python -I -S RUNNER_FOLDER supervise ATTEMPT_DIR\n")
        return 2
    _register()
    return int(importlib.import_module(NAME + "." + PARTS[sys.argv[1]]).main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
