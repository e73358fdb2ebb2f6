"""``python -m tests.faults``: play seeds, say what each fault hit, and how to play a failing seed again."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections import Counter

from .bugs import BUGS
from .checks import CHECKS
from .seeds import Options, Outcome, play


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        epilog="\n".join(
            [
                "checks:",
                *(f"  {check:<10}{holds}" for check, holds in CHECKS.items()),
                "",
                "deliberate bugs, and the check that has to catch each:",
                *(f"  {bug:<36}{check}" for bug, check in BUGS.items()),
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seeds", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--first", type=int, default=1, help="the first one (default: 1)")
    parser.add_argument("--jobs", type=int, default=1000, help="of a seed (default: 1000)")
    parser.add_argument("--kills", type=int, default=50, help="of a seed; half as many other faults (default: 50)")
    parser.add_argument("--records", type=int, default=200, help="of a job, at most (default: 200)")
    parser.add_argument("--no-disks", action="store_true", help="fill no disks")
    parser.add_argument("--no-clock", action="store_true", help="let no clock jump")
    parser.add_argument("--bug", choices=sorted(BUGS), default="", help="put this bug into the programs")
    parser.add_argument("--bugs", action="store_true", help="put each bug in: its check must catch it within the seeds")
    parser.add_argument("--patience", type=float, default=120, help="seconds without progress (default: 120)")
    parser.add_argument("--keep", action="store_true", help="keep the directories of seeds that fail")
    return parser.parse_args()


def report(outcomes: list[Outcome]) -> None:
    """Print what was hit, over all seeds."""
    count: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for outcome in outcomes:
        count.update(outcome.hits.count)
        caught.update(outcome.hits.caught)
        missed.update(outcome.hits.missed)
    print(f"{'fault':<20}{'hits':>6}{'jobs in mid-run':>18}{'no victim':>12}")
    for name in sorted({*count, *missed}):
        print(f"{name:<20}{count[name]:>6}{caught[name]:>18}{missed[name]:>12}")
    print(f"{'all':<20}{count.total():>6}{caught.total():>18}{missed.total():>12}")
    for why in sorted({why for outcome in outcomes for why in outcome.skipped}):
        print(f"skipped: {why}")


def run(options: Options, seeds: range) -> list[Outcome]:
    outcomes = []
    for seed in seeds:
        outcome = asyncio.run(play(seed, options))
        outcomes.append(outcome)
        verdict = "FAILED" if outcome.wrong else "ok"
        print(
            f"seed {seed} on {options.database}: {verdict}; {len(outcome.told.ids)} jobs, {outcome.records} records, "
            f"{outcome.changes} changes, {sum(outcome.hits.count.values())} hits, {outcome.seconds:.0f} s; "
            f"repeated by hand: {dict(outcome.told.refused) or 'nothing'}",
            flush=True,
        )
        for wrong in outcome.wrong[:20]:
            print(f"  {wrong}")
        if outcome.wrong:
            print(f"  again: {options.command(seed)}", flush=True)
        if BUGS.get(options.bug) in {wrong.check for wrong in outcome.wrong}:
            break  # the bug was caught by its check
    return outcomes


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a seed that is broken off still cleans up
    seeds = range(given.first, given.first + given.seeds)
    bugs = list(BUGS) if given.bugs else [given.bug]
    failed = False
    for bug in bugs:
        options = Options(
            database=given.database,
            jobs=given.jobs,
            kills=given.kills,
            records=given.records,
            disks=not given.no_disks,
            clock=not given.no_clock,
            bug=bug,
            keep=given.keep,
            patience=given.patience,
        )
        outcomes = run(options, seeds)
        report(outcomes)
        caught = {wrong.check for outcome in outcomes for wrong in outcome.wrong}
        if given.bugs:
            by = f"by {', '.join(sorted(caught)) or 'nothing'}; meant for it: {BUGS[bug]}"
            print(f"bug {bug}: {'caught' if BUGS[bug] in caught else 'NOT CAUGHT'} {by}", flush=True)
        failed |= BUGS[bug] not in caught if given.bugs else bool(caught)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
