"""Which job an argument means: an id, or the beginning of one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .. import errors
from ..model.jobs import Job
from .options import nearest

if TYPE_CHECKING:
    from .sync import Client

#: newest jobs among which the beginning of an id is looked for
LOOKED_AT = 1000


def job_named(client: Client, text: str) -> Job:
    """Return the job with the id *text*, or the only one whose id begins so.

    :raises NotFound: there is none; the hint names the nearest.
    :raises InvalidRequest: several begin so.
    """
    try:
        return client.job(text)
    except errors.NotFound:
        jobs = {job.id: job for job in itertools.islice(client.iter_jobs(), LOOKED_AT)}
    begun = [job for job_id, job in jobs.items() if text and job_id.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        some = ", ".join(job.id for job in begun[:3])
        raise errors.InvalidRequest(f"{len(begun)} jobs begin with {text!r}: {some}…", hint="Write more of the id.")
    hint = nearest(text, jobs) or "`jupyter gpu ls --all` lists them, in a notebook `%gpu jobs --all`."
    raise errors.NotFound(f"there is no job {text!r}", hint=hint)
