"""The checks of a seed can fail: a platform that told the truth is passed, and each untruth is seen by its check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, Phase, Reason

from .bugs import BUGS
from .checks import CHECKS, Shown, judge
from .hurting import Hits
from .ledger import Ledger
from .load import Told


class Seed:
    """One job that showed three records and ended well, and whatever is then made untrue of it."""

    def __init__(self, folder: Path) -> None:
        self.book, self.told, self.hits = Ledger(folder), Told(ids={0: "j0"}), Hits()
        self.note("start 0 1 4194305 1")
        self.note("end 0 1 0")
        tokens = [f"0.1.{n}:xx;" for n in range(3)]
        (folder / "0.records").write_text("".join(tokens))
        records = [{"type": "stream", "name": "stdout", "text": token} for token in tokens] + [{"type": "exit"}]
        self.records = [record | {"seq": n, "cursor": f"c{n}"} for n, record in enumerate(records, 1)]
        self.told.followed[0] = list(self.records)
        self.told.changes.append([1, 2, 3])
        self.changes = [1, 2, 3]
        spec = JobSpec(source=Command(argv=("true",)), labels={"number": "0"})
        me = {"owner": "me", "project": "default", "organisation": "default"}
        self.job = Job(id="j0", spec=spec, created=0.0, phase=Phase.SUCCEEDED, attempt=1, exit_code=0, **me)

    def note(self, line: str) -> None:
        with (self.book.folder / "events").open("a") as events:
            events.write(line + "\n")

    def caught(self) -> set[str]:
        shown = Shown([self.job] if self.job.id in self.told.ids.values() else [], {0: self.records}, self.changes)
        return {wrong.check for wrong in judge(self.book, self.told, self.hits, shown)}


def gone(seed: Seed) -> None:
    seed.job = replace(seed.job, id="another")


def held_twice(seed: Seed) -> None:
    seed.note("twice 0 2 4194306")


def started_twice(seed: Seed) -> None:
    seed.note("start 0 1 4194306 1")


def called_failed(seed: Seed) -> None:
    seed.job = replace(
        seed.job, phase=Phase.FAILED, reason=Reason(code="exit_code", message="it is said to have failed")
    )


def cancelled_by_nobody(seed: Seed) -> None:
    seed.job = replace(seed.job, phase=Phase.CANCELLED)


def cancelled_and_tried_again(seed: Seed) -> None:
    seed.told.wishes[0]["cancel"] += 1
    seed.told.granted[0, "cancel"] = replace(seed.job, phase=Phase.RUNNING, attempt=0, cancel_requested=True)


def retried_in_vain(seed: Seed) -> None:
    seed.told.wishes[0]["retry"] += 1
    seed.told.granted[0, "retry"] = replace(seed.job, phase=Phase.QUEUED)


def last_record_missing(seed: Seed) -> None:
    del seed.records[2]
    seed.records[2] = seed.records[2] | {"seq": 3}


def shown_twice(seed: Seed) -> None:
    seed.records.insert(1, seed.records[0])


def shown_and_taken_back(seed: Seed) -> None:
    seed.told.followed[0].append(seed.records[0] | {"cursor": "c9"})


def row_skipped(seed: Seed) -> None:
    seed.told.changes[0].remove(2)


UNTRUE: list[tuple[Callable[[Seed], None], str]] = [
    (gone, "accepted"),
    (held_twice, "holders"),
    (started_twice, "holders"),
    (called_failed, "ends"),
    (cancelled_by_nobody, "ends"),
    (cancelled_and_tried_again, "ends"),
    (retried_in_vain, "ends"),
    (last_record_missing, "content"),
    (shown_twice, "content"),
    (shown_and_taken_back, "readers"),
    (row_skipped, "changes"),
]


def test_the_truth_is_passed(tmp_path: Path) -> None:
    assert Seed(tmp_path).caught() == set()


@pytest.mark.parametrize(("spoil", "check"), UNTRUE)
def test_an_untruth_is_seen(tmp_path: Path, spoil: Callable[[Seed], None], check: str) -> None:
    seed = Seed(tmp_path)
    spoil(seed)
    assert check in seed.caught()


def test_each_deliberate_bug_names_a_check() -> None:
    assert set(BUGS.values()) <= set(CHECKS)
