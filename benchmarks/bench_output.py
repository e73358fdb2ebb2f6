"""``print`` of much text under ``%%gpu_run``, beside the same cell here: seconds to idle, every character counted."""

from __future__ import annotations

import argparse

from kernels import kernel
from measuring import Figure, private_platform, report

LINE = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 run in place of 5")
    runs = 1 if parser.parse_args().quick else 5
    size = 100_000_000
    cell = f"for _ in range({size // LINE}):\n    print('x' * {LINE - 1})"
    with private_platform(), kernel() as started:
        started.run("%%gpu_run\nprint(1)")
        far, here = [], []
        for _ in range(runs):
            for found, code in ((far, f"%%gpu_run\n{cell}"), (here, cell)):
                timing = started.run(code, timeout=600)
                assert timing.printed == size, f"{timing.printed} of {size} characters came"
                found.append(timing.idle)
    report(
        "printing: 100 MB in lines of 80 bytes, all of it shown and counted",
        [
            Figure(name="%%gpu_run: to idle, output committed", unit="s", runs=far),
            Figure(name="here: to idle", unit="s", runs=here),
        ],
        note="SQLite, synchronous=FULL",
    )


if __name__ == "__main__":
    main()
