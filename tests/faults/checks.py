"""What must hold after a seed, whatever was hurt: the platform's word against the ledger's, job by job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jupyter_gpu_platform.model.jobs import Job, Phase

from .hurting import Hits
from .ledger import Ledger, Run, tokens
from .load import Told

#: reasons with which an attempt may end that never began, while a disk was full
NOT_BEGUN = ("start_failed",)


@dataclass
class Shown:
    """What the platform shows once all faults are over."""

    jobs: list[Job]
    #: number → its whole output
    output: dict[int, list[dict[str, Any]]]
    #: the whole change log's ids
    changes: list[int]


def judge(book: Ledger, told: Told, hits: Hits, shown: Shown) -> list[str]:
    """Return all that is wrong, in words."""
    book.read()
    found = [*book.broken, *_accepted(told, shown), *_change_log(told, shown)]
    by_id = {job.id: job for job in shown.jobs}
    for number, job_id in sorted(told.ids.items()):
        job = by_id.get(job_id)
        if job is not None:
            records = shown.output[number]
            problems = [
                *_end(number, job, book, hits),
                *_records(number, job, records, book, hits),
                *_seen(told.followed.get(number, records), records),
            ]
            found += [f"job {number} ({job_id}, {job.phase}): {problem}" for problem in problems]
    return found


def _accepted(told: Told, shown: Shown) -> Iterator[str]:
    there = {job.id for job in shown.jobs}
    for number, job_id in told.ids.items():
        if job_id not in there:
            yield f"job {number} ({job_id}) was accepted and is gone"
    for number, count in Counter(job.spec.labels["number"] for job in shown.jobs).items():
        if count > 1:
            yield f"job {number} was submitted once and is there {count} times"


def _change_log(told: Told, shown: Shown) -> Iterator[str]:
    for follower, seen in enumerate(told.changes):
        whole = shown.changes[: len(seen)]
        if seen != whole:
            lost, more = set(whole) - set(seen), [row for row, count in Counter(seen).items() if count > 1]
            yield f"follower {follower} of the change log skipped {sorted(lost)[:9]} and repeated {more[:9]}"


def _end(number: int, job: Job, book: Ledger, hits: Hits) -> Iterator[str]:
    """The end that is shown is the end that was."""
    run = (number, job.attempt)
    started, meant = run in book.started, book.ended.get(run)
    hurt = run in hits.workers or run in hits.supervisors
    code = job.reason.code if job.reason else ""
    if not job.phase.ended:
        yield f"it never ended: {job.reason}"
    elif job.phase is Phase.SUCCEEDED and meant != 0:
        yield f"it succeeded, but by the ledger attempt {job.attempt} ended with {meant}"
    elif job.phase is not Phase.SUCCEEDED and meant == 0 and not hurt:
        yield f"attempt {job.attempt} ended well and nobody hurt it, but it is called {code!r}"
    elif not started and code not in NOT_BEGUN:
        yield f"attempt {job.attempt} never started, and it ended with {code!r}"
    elif not started and not any(name.startswith("full") for name in hits.count):
        yield f"attempt {job.attempt} could not be started, though there was room: {job.reason}"
    elif started and meant is None and not hurt:
        yield f"attempt {job.attempt} was cut off and nobody hurt it: {job.reason}"
    elif meant and not hurt and job.exit_code != meant:
        yield f"it ended with {meant} and is said to have ended with {job.exit_code}"
    for attempt in range(1, job.attempt):
        if book.ended.get((number, attempt)) == 0 and not {(number, attempt)} & (hits.workers | {*hits.supervisors}):
            yield f"attempt {attempt} ended well, and it was run again"
    if job.attempt > job.spec.retries + 1:
        yield f"it had {job.attempt} attempts, and was to have {job.spec.retries + 1} at most"
    if unknown := [run for run in book.started if run[0] == number and run[1] > job.attempt]:
        yield f"attempts ran that the platform doesn't know: {unknown}"


def _records(number: int, job: Job, records: list[dict[str, Any]], book: Ledger, hits: Hits) -> Iterator[str]:
    meant = book.intents(number)
    by_attempt: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        by_attempt.setdefault(record.get("attempt", 1), []).append(record)
    for attempt in range(1, job.attempt + 1):
        own, run = by_attempt.get(attempt, []), (number, attempt)
        for problem in (
            *_numbered(own, run in book.started),
            *_gaps(own, run, hits),
            *_equal(tokens(own), meant.get(attempt, []), own, run, hits),
        ):
            yield f"attempt {attempt}: {problem}"


def _numbered(records: list[dict[str, Any]], started: bool) -> Iterator[str]:
    if [record["seq"] for record in records] != list(range(1, len(records) + 1)):
        yield f"its records are numbered {[record['seq'] for record in records]}"
    exits = [place for place, record in enumerate(records, 1) if record["type"] == "exit"]
    if started and exits != [len(records)]:
        yield f"its exit records are at {exits} of {len(records)}"


def _gaps(records: list[dict[str, Any]], run: Run, hits: Hits) -> Iterator[str]:
    for record in records:
        if record["type"] == "gap" and not (
            (record["code"] == "supervisor_killed" and run in hits.supervisors)
            or (record["code"] == "spool_full" and hits.count.get("full-spool"))
        ):
            yield f"it has a gap that nothing made: {record['message']}"


def _equal(shown: list[str], meant: list[str], records: list[dict[str, Any]], run: Run, hits: Hits) -> Iterator[str]:
    if shown != meant[: len(shown)]:
        first = next(place for place, token in enumerate(shown) if meant[place : place + 1] != [token])
        here = slice(first, first + 3)
        yield f"its output differs from the ledger at {first}: {shown[here]}, not {meant[here]}"
        return
    missing = len(meant) - len(shown)
    spooled = hits.supervisors.get(run)
    if spooled is not None:
        if spooled and spooled[-1] not in shown:
            yield "what its spool held when its supervisor was killed is missing"
        if missing and not any(record["type"] == "gap" for record in records):
            yield f"its last {missing} records are missing, and no gap says so"
    elif missing > (run in hits.workers):
        # A worker that is killed may have noted a record that it had not yet shown.
        yield f"its last {missing} of {len(meant)} records are missing"


def _seen(seen: list[dict[str, Any]], records: list[dict[str, Any]]) -> Iterator[str]:
    if [record["cursor"] for record in seen] != [record["cursor"] for record in records[: len(seen)]]:
        yield "a follower saw other records, or in another order, than there are"
    elif seen != records[: len(seen)]:
        yield "records that a follower saw have changed"
    elif len(seen) != len(records):
        yield f"a follower saw {len(seen)} of {len(records)} records"
