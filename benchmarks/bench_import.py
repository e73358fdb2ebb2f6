"""What `import jupyter_gpu_platform` adds to Python's own start."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from measuring import Figure, report


def start(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 runs in place of 20")
    runs = 5 if parser.parse_args().quick else 20
    start("import jupyter_gpu_platform")
    pairs = [(start("import jupyter_gpu_platform"), start("pass")) for _ in range(runs)]
    report(
        "import: the package beside Python's own start",
        [
            Figure(name="python -c 'import jupyter_gpu_platform'", unit="ms", runs=[ours for ours, _ in pairs]),
            Figure(name="python -c pass", unit="ms", runs=[bare for _, bare in pairs]),
            Figure(name="difference", unit="ms", runs=[ours - bare for ours, bare in pairs]),
        ],
    )


if __name__ == "__main__":
    main()
