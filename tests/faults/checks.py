"""What must hold after a seed, whatever was hurt: the platform's word against the ledger's, job by job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from jupyter_gpu_platform.model.jobs import Job, Phase

from .hurting import Hits
from .ledger import Ledger, Run, tokens
from .load import Told

#: each check's name, and what it holds
CHECKS = {
    "accepted": "each job that was accepted is there, once, and nobody is ever told otherwise",
    "holders": "no job runs twice at a time, none of its attempts is started twice, and none outlives the job's end",
    "ends": "each job has an end, and it is the one that the ledger or a person's wish gave it",
    "content": "each attempt's output is the ledger's, record for record; only what a kill cut off may be missing",
    "readers": "what a follower of a job was shown is there, unchanged and in that order, and it was all of it",
    "changes": "whoever follows the change log sees each row once, in its order",
    "progress": "something happens, until all is over",
}

#: reasons with which an attempt may end that never began, while a disk was full
NOT_BEGUN = ("start_failed",)


class Wrong(NamedTuple):
    #: the check that saw it
    check: str
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.what}"


@dataclass
class Shown:
    """What the platform shows once all faults are over."""

    jobs: list[Job]
    #: number → its whole output
    output: dict[int, list[dict[str, Any]]]
    #: the whole change log's ids
    changes: list[int]


def judge(book: Ledger, told: Told, hits: Hits, shown: Shown) -> list[Wrong]:
    """Return all that is wrong."""
    by_id = {job.id: job for job in shown.jobs}
    running = book.running()
    found = [
        *(Wrong("holders", what) for what in book.broken),
        *(Wrong("accepted", what) for what in _accepted(told, shown)),
        *(Wrong("changes", what) for what in _change_log(told, shown)),
    ]
    for number, job_id in sorted(told.ids.items()):
        job = by_id.get(job_id)
        if job is not None:
            records = shown.output[number]
            seen, wishes = told.followed.get(number, records), told.wishes[number]
            problems = [
                *(("holders", what) for what in _left_behind(job, running, wishes)),
                *(("ends", what) for what in (*_end(number, job, book, told, hits), *_asked(number, job, told))),
                *(("content", what) for what in _records(number, job, records, book, told, hits)),
                *(("readers", what) for what in _seen(seen, records, wishes)),
            ]
            found += [Wrong(check, f"job {number} ({job_id}, {job.phase}): {what}") for check, what in problems]
    return found


def _accepted(told: Told, shown: Shown) -> Iterator[str]:
    there = {job.id for job in shown.jobs}
    for number, job_id in told.ids.items():
        if job_id not in there:
            yield f"job {number} ({job_id}) was accepted and is gone"
        elif job_id in told.unknown:
            yield f"job {number} ({job_id}) was accepted, and then a follower was told that there is no such job"
    for label, count in Counter(job.spec.labels["number"] for job in shown.jobs).items():
        if count > 1:
            yield f"job {label} was submitted once and is there {count} times"


def _change_log(told: Told, shown: Shown) -> Iterator[str]:
    for follower, seen in enumerate(told.changes):
        whole = shown.changes[: len(seen)]
        if seen != whole:
            lost, more = set(whole) - set(seen), [row for row, count in Counter(seen).items() if count > 1]
            yield f"follower {follower} of the change log skipped {sorted(lost)[:9]} and repeated {more[:9]}"


def _left_behind(job: Job, running: list[Run], wishes: Counter[str]) -> Iterator[str]:
    number = int(job.spec.labels["number"])
    if job.phase.ended and not wishes["abandon"]:
        yield from (f"its attempt {run[1]} still runs, and it has ended" for run in running if run[0] == number)


def _end(number: int, job: Job, book: Ledger, told: Told, hits: Hits) -> Iterator[str]:
    """The end that is shown is the end that was."""
    run, wishes = (number, job.attempt), told.wishes[number]
    started, meant = run in book.started, book.ended.get(run)
    stopped = wishes["cancel"] or wishes["interrupt"] or wishes["abandon"]
    hurt = run in hits.workers or run in hits.supervisors or stopped
    code = job.reason.code if job.reason else ""
    if not job.phase.ended:
        yield f"it never ended: {job.reason}"
    elif job.phase is Phase.SUCCEEDED and meant != 0:
        yield f"it succeeded, but by the ledger attempt {job.attempt} ended with {meant}"
    elif job.phase is not Phase.SUCCEEDED and meant == 0 and not hurt:
        yield f"attempt {job.attempt} ended well and nobody hurt it, but it is called {code!r}"
    elif not started and not stopped and code not in NOT_BEGUN:
        yield f"attempt {job.attempt} never started, and it ended with {code!r}"
    elif not started and not stopped and not any(name.startswith("full") for name in hits.count):
        yield f"attempt {job.attempt} could not be started, though there was room: {job.reason}"
    elif started and meant is None and not hurt:
        yield f"attempt {job.attempt} was cut off and nobody hurt it: {job.reason}"
    elif meant and not hurt and job.exit_code != meant:
        yield f"it ended with {meant} and is said to have ended with {job.exit_code}"
    for attempt in range(1, job.attempt):
        spoiled = {(number, attempt)} & (hits.workers | {*hits.supervisors}) or stopped or wishes["retry"]
        if book.ended.get((number, attempt)) == 0 and not spoiled:
            yield f"attempt {attempt} ended well, and it was run again"
    if job.attempt > (most := job.spec.retries + 1 + wishes["retry"]):
        yield f"it had {job.attempt} attempts, and was to have {most} at most"
    if unknown := [run for run in book.started if run[0] == number and run[1] > job.attempt]:
        yield f"attempts ran that the platform doesn't know: {unknown}"


def _asked(number: int, job: Job, told: Told) -> Iterator[str]:
    """What people asked for, and were granted, has come; what nobody asked for has not."""
    wishes = told.wishes[number]
    cancelled, retried = told.granted.get((number, "cancel")), told.granted.get((number, "retry"))
    if job.phase is Phase.CANCELLED and not wishes["cancel"]:
        yield "it was cancelled, and nobody had asked for that"
    if cancelled is not None and cancelled.cancel_requested and not wishes["retry"]:
        if job.phase is Phase.FAILED and cancelled.phase is not Phase.FAILED and not wishes["abandon"]:
            yield f"its cancellation was accepted, and it failed: {job.reason}"
        if job.attempt > cancelled.attempt:
            yield f"its cancellation was accepted in attempt {cancelled.attempt}, and it was tried again"
    if retried is not None and not wishes["cancel"] and job.attempt <= retried.attempt:
        yield f"another try was accepted after attempt {retried.attempt}, and none came"
    if job.reason is not None and job.reason.code == "abandoned" and not wishes["abandon"]:
        yield "it was given up, and nobody had asked for that"


def _records(
    number: int, job: Job, records: list[dict[str, Any]], book: Ledger, told: Told, hits: Hits
) -> Iterator[str]:
    meant, wishes = book.intents(number), told.wishes[number]
    by_attempt: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        by_attempt.setdefault(record.get("attempt", 1), []).append(record)
    for attempt in range(1, job.attempt + 1):
        own, run = by_attempt.get(attempt, []), (number, attempt)
        given_up = attempt == job.attempt and wishes["abandon"]
        for problem in (
            *_numbered(own, run in book.started and not given_up),
            *_gaps(own, run, hits),
            *_differing(shown := tokens(own), meant.get(attempt, [])),
            *(() if given_up else _missing(shown, meant.get(attempt, []), own, run, wishes, hits)),
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


def _differing(shown: list[str], meant: list[str]) -> Iterator[str]:
    if shown != meant[: len(shown)]:
        first = next(place for place, token in enumerate(shown) if meant[place : place + 1] != [token])
        here = slice(first, first + 3)
        yield f"its output differs from the ledger at {first}: {shown[here]}, not {meant[here]}"


def _missing(
    shown: list[str], meant: list[str], records: list[dict[str, Any]], run: Run, wishes: Counter[str], hits: Hits
) -> Iterator[str]:
    missing = len(meant) - len(shown)
    spooled = hits.supervisors.get(run)
    if spooled is not None:
        if spooled and spooled[-1] not in shown:
            yield "what its spool held when its supervisor was killed is missing"
        if missing and not any(record["type"] == "gap" for record in records):
            yield f"its last {missing} records are missing, and no gap says so"
    elif missing > (run in hits.workers or wishes["cancel"] > 0 or wishes["interrupt"] > 0):
        # A worker that is killed or stopped may have noted a record that it had not yet shown.
        yield f"its last {missing} of {len(meant)} records are missing"


def _seen(seen: list[dict[str, Any]], records: list[dict[str, Any]], wishes: Counter[str]) -> Iterator[str]:
    if [record["cursor"] for record in seen] != [record["cursor"] for record in records[: len(seen)]]:
        yield "a follower saw other records, or in another order, than there are"
    elif seen != records[: len(seen)]:
        yield "records that a follower saw have changed"
    elif len(seen) != len(records) and not (wishes["retry"] or wishes["abandon"]):  # which go on behind an end
        yield f"a follower saw {len(seen)} of {len(records)} records"
