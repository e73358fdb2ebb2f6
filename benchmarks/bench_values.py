"""An 80 MB array into a job and out of it, beside pickling and unpickling it here."""

from __future__ import annotations

import argparse
import pickle
import time

from kernels import kernel
from measuring import Figure, private_platform, report

CHANGE = "array[0] += 1  # so that its bytes were never sent before"


def by_pickle(megabytes: int) -> float:
    """Seconds to dump and load the array in this process."""
    import numpy as np

    array = np.random.default_rng(1).random(megabytes * 125_000)
    began = time.perf_counter()
    pickle.loads(pickle.dumps(array, protocol=5))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 runs in place of 10")
    runs = 3 if parser.parse_args().quick else 10
    with private_platform(), kernel() as started:
        started.run("import numpy as np\narray = np.random.default_rng(1).random(10_000_000)")
        # What comes back is loaded, so that it counts.
        started.run("%gpu config eager_limit=1GiB")
        started.run("%%gpu_run\npass")
        into, again, out, none, copied = [], [], [], [], []
        for _ in range(runs):
            started.run(CHANGE)
            into.append(started.run("%%gpu_run\narray.shape").idle)
            again.append(started.run("%%gpu_run\narray.shape").idle)
            out.append(started.run("%%gpu_run --in np --out far\nfar = np.random.random(10_000_000)").idle)
            started.run("assert far.shape == (10_000_000,)")
            none.append(started.run("%%gpu_run\npass").idle)
            copied.append(by_pickle(80))
    report(
        "values: an 80 MB array into a job and out of one",
        [
            Figure(name="cell that uses the array: to idle", unit="s", runs=into),
            Figure(name="the same, the array unchanged", unit="s", runs=again),
            Figure(name="cell that makes one, --out: to idle, loaded", unit="s", runs=out),
            Figure(name="cell without values: to idle", unit="s", runs=none),
            Figure(name="pickle.dumps and loads here", unit="s", runs=copied),
        ],
        note="SHA-256 of every byte on the way; objects on this machine's disk",
    )


if __name__ == "__main__":
    main()
